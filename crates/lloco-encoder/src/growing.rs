//! A softprompt that grows by each segment's summary.

use lloco_decoder::{
    burn::tensor::{Tensor, s},
    zeros,
};

/// Rows that room is made for before they are there.
const MOST: usize = 8192;

/// Rows in one tensor with room for more, so that all of them are at hand without a copy.
#[derive(Debug)]
pub(crate) struct Growing {
    /// `[capacity, hidden]`, made with the first rows.
    rows: Option<Tensor<2>>,
    len: usize,
    /// Rows to make room for.
    expected: usize,
}

impl Growing {
    /// No rows yet, room for so many, within reason.
    pub(crate) fn new(expected: usize) -> Self {
        Self { rows: None, len: 0, expected: expected.min(MOST) }
    }

    /// Adds rows `[n, hidden]`.
    pub(crate) fn push(&mut self, new: Tensor<2>) {
        let [n, hidden] = new.dims();
        let end = self.len + n;
        let room = |capacity| zeros([capacity, hidden], new.dtype(), &new.device());
        let rows = match self.rows.take() {
            Some(rows) if rows.dims()[0] >= end => rows,
            Some(rows) => Tensor::cat(vec![rows.slice(s![0..self.len, ..]), room(end)], 0),
            None => room(self.expected.max(end)),
        };
        self.rows = Some(rows.slice_assign(s![self.len..end, ..], new));
        self.len = end;
    }

    /// Forgets all but the first `len` rows.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The last `n` rows, or as many as there are.
    pub(crate) fn newest(&self, n: usize) -> Option<Tensor<2>> {
        let first = self.len.saturating_sub(n);
        (first < self.len).then(|| self.rows.clone().map(|rows| rows.slice(s![first..self.len, ..])))?
    }
}

//! What attention's gradients by tiles are worked out in.

use super::super::simd::{LANES, PairUnit};
use super::super::tiles::{BLOCK, DEPTH, Step};
use super::tiled_backward::{KEYS, QUERIES};
use bytemuck::Zeroable;
use std::cell::Cell;

/// Numbers of a head's keys up to which a thread keeps what it worked with.
const KEPT: usize = 1 << 19;

/// What a task works with, kept for the thread's next: no allocator clears it each time.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) factors: Factors,
    /// `[queries]`.
    pub(super) logs: Vec<f32>,
    pub(super) common: Vec<f32>,
    /// `[keys, dim]`.
    pub(super) key_sums: Vec<f32>,
    pub(super) value_sums: Vec<f32>,
    /// `[dim, queries at once]`.
    pub(super) query_sums: Vec<f32>,
    /// `[BLOCK, queries at once]`, and so the rows.
    pub(super) scores: Vec<f32>,
    pub(super) slopes: Vec<f32>,
    pub(super) weight_rows: Vec<Step>,
    pub(super) slope_rows: Vec<Step>,
    /// `[query / 16, KEYS / 2]`.
    pub(super) slope_pairs: Vec<PairUnit>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    /// This thread's, for so many padded queries and keys of `dim` numbers. Sums are 0 then; the rest is of no certain value.
    pub(super) fn take(sizes: [usize; 3]) -> Self {
        let mut scratch = SCRATCH.take();
        scratch.fit(sizes);
        scratch
    }

    /// Leaves it for the thread's next task, unless it is large.
    pub(super) fn keep(self) {
        if self.key_sums.len() <= KEPT {
            SCRATCH.set(self);
        }
    }

    fn fit(&mut self, [queries, keys, dim]: [usize; 3]) {
        let wide = QUERIES.min(queries);
        for (sums, len) in
            [(&mut self.key_sums, keys * dim), (&mut self.value_sums, keys * dim), (&mut self.query_sums, dim * wide)]
        {
            sums.clear();
            sums.resize(len, 0.0);
        }
        self.logs.resize(queries, 0.0);
        self.common.resize(queries, 0.0);
        self.scores.resize(BLOCK * wide, 0.0);
        self.slopes.resize(BLOCK * wide, 0.0);
        self.weight_rows.resize(BLOCK * wide / DEPTH, Step::zeroed());
        self.slope_rows.resize(BLOCK * wide / DEPTH, Step::zeroed());
        self.slope_pairs.resize(KEYS / 2 * wide / LANES, PairUnit::zeroed());
    }
}

/// The head's numbers as factors.
#[derive(Default)]
pub(super) struct Factors {
    /// `[query / 16, dim / 2]`: queries and the output's gradient, as columns.
    pub(super) query_columns: Vec<PairUnit>,
    pub(super) grad_columns: Vec<PairUnit>,
    /// `[dim / 16, query / 2]`: both as rows.
    pub(super) query_rows: Vec<PairUnit>,
    pub(super) grad_rows: Vec<PairUnit>,
    /// `[key, dim]`, as left factors.
    pub(super) keys: Vec<Step>,
    pub(super) values: Vec<Step>,
    /// `[dim, key]`.
    pub(super) turned_keys: Vec<Step>,
}

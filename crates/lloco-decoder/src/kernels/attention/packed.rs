//! Attention within pieces of one sequence, each to itself and to its trunk, and its gradients.

use super::super::cpu::Isa;
use super::super::reuse::Buffer;
use super::{Gradients, Inputs, Saved, Sizes, View};
use crate::packing::Piece;
use std::ops::Range;

/// As [`super::attention`], over `pieces` in order, which divide the rows of `inputs` among them; `lse` has `[heads, rows]`
/// of each piece.
pub(crate) fn attention(
    isa: Isa,
    inputs: Inputs<'_, f32>,
    pieces: &[Piece],
    out: &mut [f32],
    mut lse: Option<&mut [f32]>,
) {
    check(&inputs, pieces);
    let mut gathered = Gathered::default();
    for piece in pieces {
        let places = Places::new(&inputs.sizes, &piece.rows);
        let own = gathered.inputs(inputs, piece);
        let lse = lse.as_mut().map(|lse| &mut lse[places.logs]);
        super::attention(isa, own, &mut out[places.numbers], lse);
    }
}

/// The gradients of [`attention`].
pub(crate) fn attention_backward(isa: Isa, inputs: Inputs<'_, f32>, pieces: &[Piece], saved: Saved<'_>) -> Gradients {
    let z = inputs.sizes;
    check(&inputs, pieces);
    let mut q = Buffer::new(z.queries * z.heads * z.dim);
    let [mut k, mut v] = [0; 2].map(|_| Buffer::zeroed(z.kv_heads * z.keys * z.dim));
    let mut gathered = Gathered::default();
    for piece in pieces.iter().filter(|piece| !piece.rows.is_empty()) {
        let Places { numbers, logs } = Places::new(&z, &piece.rows);
        let (out, lse, grad) = (&saved.out[numbers.clone()], &saved.lse[logs], &saved.grad[numbers.clone()]);
        let own = gathered.inputs(inputs, piece);
        let found = super::attention_backward(isa, own, Saved { out, lse, grad });
        q[numbers].copy_from_slice(&found.q);
        let keys = piece.trunk.len() + piece.rows.len();
        for (to, from) in [(&mut k, found.k), (&mut v, found.v)] {
            for (head, from) in from.chunks_exact(keys * z.dim).enumerate() {
                let (of_trunk, of_rows) = from.split_at(piece.trunk.len() * z.dim);
                for (rows, from) in [(&piece.trunk, of_trunk), (&piece.rows, of_rows)] {
                    let to = &mut to[(head * z.keys + rows.start) * z.dim..][..from.len()];
                    to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
                }
            }
        }
    }
    Gradients { q, k, v }
}

fn check(inputs: &Inputs<'_, f32>, pieces: &[Piece]) {
    let sizes = &inputs.sizes;
    assert!(inputs.padding.iter().all(|&pad| pad == 0), "packed attention: padding {:?}", inputs.padding);
    let ends = pieces.iter().map(|piece| piece.rows.start).skip(1).chain([sizes.queries]);
    let joined =
        pieces.iter().zip(ends).all(|(piece, end)| piece.rows.end == end && piece.trunk.end <= piece.rows.start);
    let whole = pieces.first().is_some_and(|piece| piece.rows.start == 0);
    assert!(
        whole && joined && sizes.batch == 1 && sizes.queries == sizes.keys,
        "packed attention: {sizes:?}, {pieces:?}"
    );
}

/// Where a piece's rows of `[rows, heads, dim]` are, and its logarithms.
struct Places {
    numbers: Range<usize>,
    logs: Range<usize>,
}

impl Places {
    fn new(sizes: &Sizes, rows: &Range<usize>) -> Self {
        let place = |width: usize| rows.start * width..rows.end * width;
        Self { numbers: place(sizes.heads * sizes.dim), logs: place(sizes.heads) }
    }
}

/// Keys and values of a trunk and of the rows behind it, `[kv_heads, keys, dim]`, where these do not follow each other.
#[derive(Default)]
struct Gathered {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Gathered {
    /// What one piece reads.
    fn inputs<'a>(&'a mut self, all: Inputs<'a, f32>, piece: &Piece) -> Inputs<'a, f32> {
        let Piece { rows, trunk } = piece;
        let keys = trunk.len() + rows.len();
        let sizes = Sizes { queries: rows.len(), keys, ..all.sizes };
        let from = |view: View<'a, f32>, row: usize| View { offset: view.offset + row * view.strides[2], ..view };
        let (k, v) = if trunk.is_empty() || trunk.end == rows.start {
            let first = if trunk.is_empty() { rows.start } else { trunk.start };
            (from(all.k, first), from(all.v, first))
        } else {
            for (to, view) in [(&mut self.keys, all.k), (&mut self.values, all.v)] {
                to.clear();
                for head in 0..sizes.kv_heads {
                    trunk.clone().chain(rows.clone()).for_each(|row| to.extend_from_slice(view.row(0, head, row)));
                }
            }
            let strides = [self.keys.len(), keys * sizes.dim, sizes.dim];
            let view = |data: &'a [f32]| View { data, offset: 0, strides, dim: sizes.dim };
            (view(&self.keys), view(&self.values))
        };
        Inputs { sizes, q: from(all.q, rows.start), k, v, padding: &[], rounded: all.rounded }
    }
}

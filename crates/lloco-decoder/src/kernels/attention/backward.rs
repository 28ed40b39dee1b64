//! Attention with grouped heads, causal or not, backward: gradients of queries, keys and values.
//!
//! The forward pass leaves its output and one logarithm a row; the weights come back from those, tile by tile. A task is
//! one query head. Heads that share keys each have a key and value gradient of their own, added up at the end.

use super::super::cpu::{Isa, Kernel};
use super::super::reuse::Buffer;
use super::super::rows::{each_piece, each_piece_of_two};
use super::super::shared::Shared;
use super::super::simd::{Block, LANES, Simd};
use super::super::tile::{Left, Right, product};
use super::super::tiles::hardware;
use super::tiles::{Add, Set, pack_columns, pack_rows};
use super::{Inputs, Stored, TILE, decode, tiled_backward};

/// Blocks of one row of a score tile.
const WIDTH: usize = TILE / LANES;

/// What the forward pass left, and the gradient of its output.
#[derive(Clone, Copy)]
pub(crate) struct Saved<'a> {
    /// `[batch, queries, heads * dim]`.
    pub(crate) out: &'a [f32],
    /// `[batch, heads, queries]`.
    pub(crate) lse: &'a [f32],
    /// As `out`.
    pub(crate) grad: &'a [f32],
}

/// Gradients: `[batch, queries, heads, dim]` of the queries, `[batch, kv_heads, keys, dim]` of keys and values.
pub(crate) struct Gradients {
    pub(crate) q: Buffer,
    pub(crate) k: Buffer,
    pub(crate) v: Buffer,
}

/// The gradients of `inputs`.
pub(crate) fn attention_backward<T: Stored>(isa: Isa, inputs: Inputs<'_, T>, saved: Saved<'_>) -> Gradients {
    if inputs.rounded && isa >= Isa::Amx && !decode::suits(&inputs.sizes) {
        return tiled_backward::attention_backward(hardware(), isa, inputs, saved);
    }
    each_head(inputs, saved, |[batch, head], q, k, v| isa.run(Task { inputs, saved, batch, head, q, k, v }))
}

/// Gradients that `work([batch, head], q, k, v)` writes one query head at a time: its places of `q`, and all of `k` and `v`
/// `[keys, dim]`.
pub(super) fn each_head<T: Stored>(
    inputs: Inputs<'_, T>,
    saved: Saved<'_>,
    work: impl Fn([usize; 2], &Shared<'_, f32>, &mut [f32], &mut [f32]) + Sync,
) -> Gradients {
    let z = inputs.sizes;
    let each = z.keys * z.dim;
    let mut q = Buffer::zeroed(z.batch * z.queries * z.heads * z.dim);
    assert_eq!((saved.out.len(), saved.grad.len()), (q.len(), q.len()), "{z:?}");
    assert_eq!(saved.lse.len(), z.batch * z.heads * z.queries, "{z:?}");
    let mut k = Buffer::zeroed(z.batch * z.heads * each);
    let mut v = Buffer::zeroed(k.len());
    if !q.is_empty() && each > 0 {
        let shared = Shared::new(&mut q);
        each_piece_of_two(&mut k, each, &mut v, each, |i, k, v| work([i / z.heads, i % z.heads], &shared, k, v));
    }
    Gradients { q, k: add_up(k, z.group(), each), v: add_up(v, z.group(), each) }
}

/// The sum over the `group` members of every group, each `each` long.
fn add_up(parts: Buffer, group: usize, each: usize) -> Buffer {
    if group == 1 || each == 0 {
        return parts;
    }
    let mut sums = Buffer::zeroed(parts.len() / group);
    each_piece(&mut sums, each, |i, sum| {
        for part in parts[i * group * each..].chunks_exact(each).take(group) {
            sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
    });
    sums
}

struct Task<'a, T> {
    inputs: Inputs<'a, T>,
    saved: Saved<'a>,
    batch: usize,
    head: usize,
    q: &'a Shared<'a, f32>,
    k: &'a mut [f32],
    v: &'a mut [f32],
}

impl<T: Stored> Kernel for Task<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let z = self.inputs.sizes;
        let (dim, panels) = (z.dim, z.dim.div_ceil(LANES));
        let kv_head = self.head / z.group();
        let padding = self.inputs.padding(self.batch);
        let of_row = |i: usize| ((self.batch * z.queries + i) * z.heads + self.head) * dim;
        let lse = &self.saved.lse[(self.batch * z.heads + self.head) * z.queries..][..z.queries];

        // Scaled queries and the output's gradient, as rows of panels too: the right-hand sides of dK and dV.
        let mut queries = vec![0.0; z.queries * dim];
        for (i, to) in queries.chunks_exact_mut(dim).enumerate() {
            for (to, x) in to.iter_mut().zip(self.inputs.q.row(self.batch, self.head, i)) {
                *to = x * z.scale();
            }
        }
        let blank = || vec![[0.0; LANES]; panels * z.queries];
        let (mut query_rows, mut grad_rows, mut sums) = (blank(), blank(), blank());
        pack_rows(s, &mut query_rows, z.queries, z.queries, dim, |i| &queries[i * dim..][..dim]);
        pack_rows(s, &mut grad_rows, z.queries, z.queries, dim, |i| &self.saved.grad[of_row(i)..][..dim]);
        let delta: Vec<f32> = (0..z.queries)
            .map(|i| {
                let (out, grad) = (&self.saved.out[of_row(i)..][..dim], &self.saved.grad[of_row(i)..][..dim]);
                out.iter().zip(grad).map(|(out, grad)| out * grad).sum()
            })
            .collect();

        let tile = || vec![[0.0; LANES]; TILE * WIDTH];
        let (mut weights, mut slopes, mut turned) = (tile(), tile(), tile());
        let columns = || vec![[0.0; LANES]; WIDTH * dim];
        let (mut key_columns, mut value_columns) = (columns(), columns());
        let rows = || vec![[0.0; LANES]; panels * TILE];
        let (mut key_rows, mut key_sums, mut value_sums) = (rows(), rows(), rows());
        for start in (padding / TILE * TILE..z.keys).step_by(TILE) {
            let len = TILE.min(z.keys - start);
            let key = |j: usize| self.inputs.k.row(self.batch, kv_head, start + j);
            pack_columns(&mut key_columns, dim, len, key);
            pack_columns(&mut value_columns, dim, len, |j| self.inputs.v.row(self.batch, kv_head, start + j));
            pack_rows(s, &mut key_rows, TILE, len, dim, key);
            key_sums.fill([0.0; LANES]);
            value_sums.fill([0.0; LANES]);
            for from in (z.first(start)..z.queries).step_by(TILE) {
                let count = TILE.min(z.queries - from);
                let across = Right { panels: &key_columns, stride: dim, count: len.div_ceil(LANES) };
                let left = Left { data: &queries[from * dim..], stride: dim, depth: dim };
                product(s, left, 0..count, across, &mut Set { to: &mut weights, stride: WIDTH });
                let across = Right { panels: &value_columns, ..across };
                let left = Left { data: &self.saved.grad[of_row(from)..], stride: z.heads * dim, depth: dim };
                product(s, left, 0..count, across, &mut Set { to: &mut slopes, stride: WIDTH });
                for r in 0..count {
                    let i = from + r;
                    let seen = z.visible(i).min(start + len).saturating_sub(start);
                    let hidden = padding.saturating_sub(start).min(seen);
                    let row = r * WIDTH..(r + 1) * WIDTH;
                    scores(s, &mut weights[row.clone()], &mut slopes[row], hidden..seen, lse[i], delta[i]);
                }
                // dV += PT dO, dK += dST Q, dQ += dS K.
                turn(&mut turned, &weights, count);
                let left = Left { data: turned.as_flattened(), stride: TILE, depth: count };
                let right = Right { panels: &grad_rows[from..], stride: z.queries, count: panels };
                product(s, left, 0..len, right, &mut Add { to: &mut value_sums, stride: panels });
                turn(&mut turned, &slopes, count);
                let left = Left { data: turned.as_flattened(), stride: TILE, depth: count };
                let right = Right { panels: &query_rows[from..], ..right };
                product(s, left, 0..len, right, &mut Add { to: &mut key_sums, stride: panels });
                let left = Left { data: slopes.as_flattened(), stride: TILE, depth: len };
                let right = Right { panels: &key_rows, stride: TILE, count: panels };
                product(s, left, 0..count, right, &mut Add { to: &mut sums[from * panels..], stride: panels });
            }
            for j in 0..len {
                let (row, sums) = ((start + j) * dim..(start + j + 1) * dim, j * panels..(j + 1) * panels);
                self.k[row.clone()].copy_from_slice(&key_sums[sums.clone()].as_flattened()[..dim]);
                self.v[row].copy_from_slice(&value_sums[sums].as_flattened()[..dim]);
            }
        }
        for i in 0..z.queries {
            // SAFETY: no other task has this head, and the piece ends with the iteration.
            let to = unsafe { self.q.piece(of_row(i), dim) };
            for (to, sum) in to.iter_mut().zip(sums[i * panels..(i + 1) * panels].as_flattened()) {
                *to = sum * z.scale();
            }
        }
    }
}

/// One row of scores into weights `e^(s - lse)`, and of weight gradients into score gradients `p (g - delta)`; 0 for all
/// that is not `seen`.
#[inline(always)]
fn scores<S: Simd>(
    s: S,
    weights: &mut [Block],
    slopes: &mut [Block],
    seen: std::ops::Range<usize>,
    lse: f32,
    delta: f32,
) {
    for (weights, slopes) in weights.iter_mut().zip(slopes.iter_mut()) {
        let p = s.exp(s.sub(s.load(weights), s.splat(lse)));
        s.store(weights, p);
        s.store(slopes, s.mul(p, s.sub(s.load(slopes), s.splat(delta))));
    }
    for all in [weights.as_flattened_mut(), slopes.as_flattened_mut()] {
        all[..seen.start].fill(0.0);
        all[seen.end..].fill(0.0);
    }
}

/// The first `rows` rows of a tile as columns.
#[inline(always)]
fn turn(to: &mut [Block], tile: &[Block], rows: usize) {
    let to = to.as_flattened_mut();
    for (i, row) in tile.as_flattened().chunks_exact(TILE).take(rows).enumerate() {
        for (j, x) in row.iter().enumerate() {
            to[j * TILE + i] = *x;
        }
    }
}

//! Attention of many queries.
//!
//! A task takes a run of positions of all query heads that share a key head. It walks the key tiles that its last position
//! sees and keeps running maximum, sum and output per row (online softmax).

use super::super::cpu::{Isa, Kernel};
use super::super::crew;
use super::super::rows::each_piece;
use super::super::shared::Shared;
use super::super::simd::{Block, LANES, Simd};
use super::super::tile::{Left, Right, product};
use super::softmax::Softmax;
use super::tiles::{Add, Set, pack_columns, pack_rows};
use super::{Inputs, Stored, TILE};

/// Rows (positions times heads of a group) that a task aims at.
const ROWS: usize = 96;

/// As [`super::attention`].
pub(super) fn attention<T: Stored>(isa: Isa, inputs: Inputs<'_, T>, out: &mut [f32], lse: &mut [f32]) {
    let sizes = inputs.sizes;
    let step = (ROWS / sizes.group()).clamp(8, ROWS).min(sizes.queries);
    let runs = sizes.queries.div_ceil(step);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let columns = key_columns(&inputs);
    // The last positions see most keys: they go first.
    crew::each(runs * sizes.batch * sizes.kv_heads, |t| {
        let first = (runs - 1 - t / (sizes.batch * sizes.kv_heads)) * step;
        let (batch, kv_head) = (t / sizes.kv_heads % sizes.batch, t % sizes.kv_heads);
        let positions = first..sizes.queries.min(first + step);
        isa.run(Task { inputs, columns: &columns, batch, kv_head, positions, out: &out, lse: &lse });
    });
}

/// All keys as the columns of panels, tile by tile, `[batch, kv_heads, tiles, panels of a tile, dim]` blocks: as much memory
/// as the keys take in f32, for the time of one call.
fn key_columns<T: Stored>(inputs: &Inputs<'_, T>) -> Vec<Block> {
    let sizes = inputs.sizes;
    let (tiles, tile) = (sizes.keys.div_ceil(TILE), TILE / LANES * sizes.dim);
    let mut columns = vec![[0.0; LANES]; sizes.batch * sizes.kv_heads * tiles * tile];
    each_piece(&mut columns, tile, |t, columns| {
        let (pair, start) = (t / tiles, t % tiles * TILE);
        let row = |j| inputs.k.row(pair / sizes.kv_heads, pair % sizes.kv_heads, start + j);
        pack_columns(columns, sizes.dim, TILE.min(sizes.keys - start), row);
    });
    columns
}

/// One run of positions of the heads that share `kv_head`.
struct Task<'a, T> {
    inputs: Inputs<'a, T>,
    columns: &'a [Block],
    batch: usize,
    kv_head: usize,
    positions: std::ops::Range<usize>,
    out: &'a Shared<'a, f32>,
    lse: &'a Shared<'a, f32>,
}

impl<T: Stored> Kernel for Task<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Inputs { sizes, q, v, .. } = self.inputs;
        let (span, dim) = (self.positions.len(), sizes.dim);
        let rows = span * sizes.group();
        let panels = dim.div_ceil(LANES);
        // Row r is position r % span of head r / span of the group.
        let at = |r: usize| (self.kv_head * sizes.group() + r / span, self.positions.start + r % span);
        let mut queries = vec![0.0; rows * dim];
        for (r, to) in queries.chunks_exact_mut(dim).enumerate() {
            let (head, position) = at(r);
            for (to, x) in to.iter_mut().zip(q.row(self.batch, head, position)) {
                *to = x * sizes.scale();
            }
        }
        let mut sums = vec![[0.0; LANES]; rows * panels];
        let mut state = vec![Softmax::new(); rows];
        let mut scores = vec![[0.0; LANES]; rows * (TILE / LANES)];
        let (tiles, tile) = (sizes.keys.div_ceil(TILE), TILE / LANES * dim);
        let columns = &self.columns[(self.batch * sizes.kv_heads + self.kv_head) * tiles * tile..][..tiles * tile];
        let mut values = vec![[0.0; LANES]; panels * TILE];
        let padding = self.inputs.padding(self.batch);
        let end = sizes.visible(self.positions.end - 1);
        for start in (padding / TILE * TILE..end).step_by(TILE) {
            let len = TILE.min(end - start);
            pack_rows(s, &mut values, TILE, len, dim, |j| v.row(self.batch, self.kv_head, start + j));
            let left = Left { data: &queries, stride: dim, depth: dim };
            let panels_of_tile = &columns[start / TILE * tile..][..tile];
            let right = Right { panels: panels_of_tile, stride: dim, count: len.div_ceil(LANES) };
            product(s, left, 0..rows, right, &mut Set { to: &mut scores, stride: TILE / LANES });
            for r in 0..rows {
                let seen = sizes.visible(self.positions.start + r % span).min(start + len).saturating_sub(start);
                let row = scores[r * (TILE / LANES)..].first_chunk_mut().expect("allocated above");
                let grown = state[r].tile(s, row, padding.saturating_sub(start)..seen);
                if grown != 1.0 {
                    for sum in &mut sums[r * panels..(r + 1) * panels] {
                        s.store(sum, s.mul(s.load(sum), s.splat(grown)));
                    }
                }
            }
            let left = Left { data: scores.as_flattened(), stride: TILE, depth: len };
            let right = Right { panels: &values, stride: TILE, count: panels };
            product(s, left, 0..rows, right, &mut Add { to: &mut sums, stride: panels });
        }
        for r in 0..rows {
            let (head, position) = at(r);
            let row = (self.batch * sizes.queries + position) * sizes.heads + head;
            // SAFETY: no other task has this position of this head, and the pieces end with the iteration.
            let (out, lse) = unsafe {
                let place = (self.batch * sizes.heads + head) * sizes.queries + position;
                (self.out.piece(row * dim, dim), self.lse.piece(place, 1))
            };
            let (scale, log) = state[r].finish();
            for (out, sum) in out.iter_mut().zip(sums[r * panels..(r + 1) * panels].as_flattened()) {
                *out = sum * scale;
            }
            lse[0] = log;
        }
    }
}

//! Attention of many queries by tile registers: queries, keys, values and weights in bf16, scores and sums in f32.
//!
//! A task takes a run of positions of all query heads that share a key head. It reads keys and values a chunk at a time, which
//! all of its rows meet while they are in a cache, [`BLOCK`] rows at a time: first a block of keys after the other, where tiles
//! compute the next block's scores while vector registers turn this one's into weights; then the values of the whole chunk, so
//! that sums stay in registers over all of it.

use super::super::cpu::{Isa, Kernel};
use super::super::crew;
use super::super::shared::Shared;
use super::super::simd::{Block, LANES, Simd};
use super::super::tiles::{BLOCK, DEPTH, Engine, Place, Rows, Started, Step, hardware};
use super::lazy_softmax::LazySoftmax;
use super::panels::round;
use super::tiled_keys::Packed;
use super::{Inputs, Stored};
use bytemuck::Zeroable;
use half::bf16;
use std::cell::Cell;
use std::ops::Range;

/// Keys whose values a block of rows meets at once.
const CHUNK: usize = 256;

/// Positions of a task.
const POSITIONS: usize = 32;

/// Bytes of keys and values that are packed at a time, if one head has not more of them, and if that keeps every thread busy.
const AT_ONCE: usize = 1 << 20;

/// As [`super::attention`], on [`Isa::Amx`].
pub(super) fn attention<T: Stored>(isa: Isa, inputs: Inputs<'_, T>, out: &mut [f32], lse: &mut [f32]) {
    with(hardware(), isa, inputs, out, lse);
}

pub(crate) fn with<T: Stored>(engine: impl Engine, isa: Isa, inputs: Inputs<'_, T>, out: &mut [f32], lse: &mut [f32]) {
    let sizes = inputs.sizes;
    let runs = sizes.queries.div_ceil(POSITIONS);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let heads = sizes.batch * sizes.kv_heads;
    let busy = rayon::current_num_threads().div_ceil(runs).max(1);
    let at_once = (AT_ONCE / Packed::bytes_of_head(sizes).max(1)).max(busy);
    for first in (0..heads).step_by(at_once) {
        let some = first..heads.min(first + at_once);
        let packed = Packed::new(isa, &inputs, some.clone());
        // The last positions see most keys: they go first.
        crew::each(runs * some.len(), |t| {
            let first = (runs - 1 - t / some.len()) * POSITIONS;
            let positions = first..sizes.queries.min(first + POSITIONS);
            let head = some.start + t % some.len();
            isa.run(Task { engine, inputs, packed: &packed, head, positions, out: &out, lse: &lse });
        });
    }
}

/// One run of positions of the heads that share a key head.
struct Task<'a, T, E> {
    engine: E,
    inputs: Inputs<'a, T>,
    packed: &'a Packed,
    /// The key head, counted through all sequences.
    head: usize,
    positions: Range<usize>,
    out: &'a Shared<'a, f32>,
    lse: &'a Shared<'a, f32>,
}

/// What the rows of a task are worked out in.
#[derive(Default)]
struct Scratch {
    queries: Vec<Step>,
    state: Vec<LazySoftmax>,
    sums: Vec<f32>,
    /// Of a block of rows and of keys, and of the next one: `[rows, 2]`.
    scores: [Vec<[Block; 2]>; 2],
    /// Of a block of rows and a chunk of keys.
    weights: Vec<Step>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    fn fit(&mut self, rows: usize, dim: usize) {
        self.queries.resize(rows * dim / DEPTH, Step::zeroed());
        self.state.clear();
        self.state.resize(rows, LazySoftmax::new());
        self.sums.resize(rows * dim, 0.0);
        for scores in &mut self.scores {
            scores.resize(BLOCK, [[0.0; LANES]; 2]);
        }
        self.weights.resize(BLOCK * CHUNK / DEPTH, Step::zeroed());
    }
}

impl<T: Stored, E: Engine> Kernel for Task<'_, T, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let sizes = self.inputs.sizes;
        let (rows, dim) = (self.positions.len() * sizes.group(), self.packed.dim);
        let mut scratch = SCRATCH.take();
        scratch.fit(rows.next_multiple_of(BLOCK), dim);
        let Scratch { queries, state, sums, scores, weights } = &mut scratch;
        for (row, to) in queries.chunks_exact_mut(dim / DEPTH).enumerate() {
            if row >= rows {
                to.fill(Step::zeroed());
                continue;
            }
            let (head, position) = self.at(row);
            round(s, self.inputs.q.row(self.batch(), head, position), to);
        }
        let tiles = self.engine.start();
        let padding = self.inputs.padding(self.batch());
        let (begin, end) = (padding / BLOCK * BLOCK, sizes.visible(self.positions.end - 1));
        if begin < end {
            self.score(&tiles, queries, 0, begin, &mut scores[0]);
        }
        for start in (begin..end).step_by(CHUNK) {
            let count = CHUNK.min(end - start).next_multiple_of(BLOCK);
            for first in (0..rows).step_by(BLOCK) {
                let place = first * dim..(first + BLOCK) * dim;
                for column in (0..count).step_by(BLOCK) {
                    let [now, next] = &mut *scores;
                    if column + BLOCK < count {
                        self.score(&tiles, queries, first, start + column + BLOCK, next);
                    } else if first + BLOCK < rows {
                        self.score(&tiles, queries, first + BLOCK, start, next);
                    } else if start + CHUNK < end {
                        self.score(&tiles, queries, 0, start + CHUNK, next);
                    }
                    let rows = first..rows.min(first + BLOCK);
                    self.mask(rows.clone(), start + column, padding, now);
                    let sums = if start > begin { &mut sums[place.clone()] } else { &mut [] };
                    self.weigh(s, now, &mut state[rows], column / DEPTH, weights, sums);
                    scores.swap(0, 1);
                }
                self.add_values(&tiles, weights, start..start + count, &mut sums[place], start > begin);
            }
        }
        for row in 0..rows {
            let sees = padding < sizes.visible(self.at(row).1);
            self.put(s, row, sees.then_some(&state[row]), &sums[row * dim..]);
        }
        SCRATCH.set(scratch);
    }
}

impl<T: Stored, E: Engine> Task<'_, T, E> {
    /// The sequence.
    #[inline(always)]
    fn batch(&self) -> usize {
        self.head / self.inputs.sizes.kv_heads
    }

    /// The head and the position of a row: row `r` is position `r % span` of head `r / span` of the group.
    #[inline(always)]
    fn at(&self, row: usize) -> (usize, usize) {
        let span = self.positions.len();
        (
            self.head % self.inputs.sizes.kv_heads * self.inputs.sizes.group() + row / span,
            self.positions.start + row % span,
        )
    }

    /// The products of the block of rows from `first` on with the block of keys from `start` on.
    #[inline(always)]
    fn score(&self, tiles: &impl Started, queries: &[Step], first: usize, start: usize, scores: &mut [[Block; 2]]) {
        let dim = self.packed.dim;
        let [keys, _] = self.packed.head(self.head);
        let panel = |p: usize| &keys[(start / LANES + p) * (dim / 2)..][..dim / 2];
        let stride = dim / DEPTH;
        let x = Rows { steps: &queries[first * stride..(first + BLOCK) * stride], stride };
        let scores = Shared::new(scores.as_flattened_mut().as_flattened_mut());
        // SAFETY: nobody else has the scores.
        let place = unsafe { Place::new(&scores, 0, BLOCK) };
        tiles.product(x, [panel(0), panel(1)], &place, false);
    }

    /// The weights of a block of keys, at this step of each row's; `sums` are those of the chunks before.
    #[inline(always)]
    fn weigh<S: Simd>(
        &self,
        s: S,
        scores: &[[Block; 2]],
        state: &mut [LazySoftmax],
        step: usize,
        weights: &mut [Step],
        sums: &mut [f32],
    ) {
        let scale = self.inputs.sizes.scale();
        let dim = self.packed.dim;
        let rows = state.iter_mut().zip(scores).zip(weights.chunks_exact_mut(CHUNK / DEPTH));
        for (r, ((state, scores), weights)) in rows.enumerate() {
            if let Some(shrunk) = state.block(s, scores, scale, bytemuck::cast_mut(&mut weights[step])) {
                let sums = if sums.is_empty() { &mut [] } else { &mut sums[r * dim..(r + 1) * dim] };
                shrink(shrunk, &mut weights[..step], sums);
            }
        }
    }

    /// Adds the weighted values of a chunk of keys to the sums of a block of rows, or begins with them.
    #[inline(always)]
    fn add_values(&self, tiles: &impl Started, weights: &[Step], keys: Range<usize>, sums: &mut [f32], add: bool) {
        let (dim, len) = (self.packed.dim, self.packed.len);
        let [_, values] = self.packed.head(self.head);
        let sums = Shared::new(sums);
        let x = Rows { steps: weights, stride: CHUNK / DEPTH };
        for column in (0..dim).step_by(BLOCK) {
            let panel = |p: usize| &values[(column / LANES + p) * (len / 2)..][keys.start / 2..keys.end / 2];
            // SAFETY: nobody else has the sums.
            let place = unsafe { Place::new(&sums, column, dim) };
            tiles.product(x, [panel(0), panel(1)], &place, add);
        }
    }

    /// What comes of a row: zeros, if it has seen no key.
    #[inline(always)]
    fn put<S: Simd>(&self, s: S, row: usize, state: Option<&LazySoftmax>, sums: &[f32]) {
        let sizes = self.inputs.sizes;
        let (head, position) = self.at(row);
        let row = (self.batch() * sizes.queries + position) * sizes.heads + head;
        // SAFETY: no other task has this position of this head, and the pieces end with the call.
        let (out, lse) = unsafe {
            let place = (self.batch() * sizes.heads + head) * sizes.queries + position;
            (self.out.piece(row * sizes.dim, sizes.dim), self.lse.piece(place, 1))
        };
        let Some((scale, log)) = state.map(|state| state.finish(s)) else {
            out.fill(0.0);
            lse[0] = f32::NEG_INFINITY;
            return;
        };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum * scale;
        }
        lse[0] = log;
    }

    /// Negative infinity instead of the scores of those keys of the block at `start` that a row does not see.
    #[inline(always)]
    fn mask(&self, rows: Range<usize>, start: usize, padding: usize, scores: &mut [[Block; 2]]) {
        let sizes = self.inputs.sizes;
        if padding <= start && start + BLOCK <= sizes.visible(self.positions.start) {
            return;
        }
        for (row, scores) in rows.zip(scores) {
            let seen = sizes.visible(self.at(row).1).clamp(start, start + BLOCK) - start;
            let scores = scores.as_flattened_mut();
            scores[..padding.clamp(start, start + BLOCK) - start].fill(f32::NEG_INFINITY);
            scores[seen..].fill(f32::NEG_INFINITY);
        }
    }
}

/// Makes weights and sums of one row `shrunk` times as large.
#[cold]
fn shrink(shrunk: f32, weights: &mut [Step], sums: &mut [f32]) {
    for weight in weights.iter_mut().flat_map(|step| &mut step.0) {
        *weight = bf16::from_f32(weight.to_f32() * shrunk);
    }
    for sum in sums {
        *sum *= shrunk;
    }
}

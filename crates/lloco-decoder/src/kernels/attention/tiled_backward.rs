//! Attention's gradients by tile registers: factors in bf16, sums in f32.
//!
//! As in [`super::backward`] a task is one query head and the weights come back from the rows' logarithms. Scores are
//! computed turned, a block of keys by many queries, so that they are the left factor of the gradients of keys and values
//! as they come, and, two keys to a unit, the right factor of the turned gradient of the queries.

use super::super::cpu::{Isa, Kernel};
use super::super::shared::Shared;
use super::super::simd::{LANES, PairUnit, Simd};
use super::super::tiles::{BLOCK, DEPTH, Engine, Place, Rows, Started, Step};
use super::backward::{Gradients, Saved, each_head};
use super::panels::{columns, pairs, round};
use super::scratch::{Factors, Scratch};
use super::{Inputs, Stored};
use bytemuck::Zeroable;
use half::bf16;
use std::f32::consts::LOG2_E;

/// Queries that a block of keys meets at once.
pub(super) const QUERIES: usize = 512;

/// Keys whose scores are kept for the gradient of the queries.
pub(super) const KEYS: usize = 256;

/// As [`super::attention_backward`], with the tiles of `engine`.
pub(crate) fn attention_backward<T: Stored>(
    engine: impl Engine,
    isa: Isa,
    inputs: Inputs<'_, T>,
    saved: Saved<'_>,
) -> Gradients {
    each_head(inputs, saved, |[batch, head], q, k, v| {
        isa.run(Task { engine, inputs, saved, batch, head, q, k, v });
    })
}

/// The gradients of one query head: `k` and `v` `[keys, dim]` are this task's alone.
struct Task<'a, T, E> {
    engine: E,
    inputs: Inputs<'a, T>,
    saved: Saved<'a>,
    batch: usize,
    head: usize,
    q: &'a Shared<'a, f32>,
    k: &'a mut [f32],
    v: &'a mut [f32],
}

impl<T: Stored, E: Engine> Kernel for Task<'_, T, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let z = self.inputs.sizes;
        let (queries, keys) = (z.queries.next_multiple_of(BLOCK), z.keys.next_multiple_of(BLOCK));
        let dim = z.dim.next_multiple_of(DEPTH);
        let mut scratch = Scratch::take([queries, keys, dim]);
        self.factors(s, [queries, keys, dim], &mut scratch.factors);
        let Scratch {
            factors,
            logs,
            common,
            key_sums,
            value_sums,
            query_sums,
            scores,
            slopes,
            weight_rows,
            slope_rows,
            slope_pairs,
        } = &mut scratch;
        // Between the same numbers of two keys.
        let wide = QUERIES.min(queries);
        // By query: the logarithm in powers of two, and what the weights' gradients have in common.
        let lse = &self.saved.lse[(self.batch * z.heads + self.head) * z.queries..][..z.queries];
        logs[z.queries..].fill(f32::INFINITY);
        common[z.queries..].fill(0.0);
        for (i, log) in lse.iter().enumerate() {
            let at = ((self.batch * z.queries + i) * z.heads + self.head) * z.dim;
            let (out, grad) = (&self.saved.out[at..at + z.dim], &self.saved.grad[at..at + z.dim]);
            logs[i] = if *log == f32::NEG_INFINITY { f32::INFINITY } else { log * LOG2_E };
            common[i] = out.iter().zip(grad).map(|(out, grad)| out * grad).sum();
        }

        let padding = self.inputs.padding(self.batch);
        let tiles = self.engine.start();
        for from in (0..z.queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - from);
            let mut met = false;
            for start in (padding / BLOCK * BLOCK..z.visible(z.queries.min(from + count) - 1)).step_by(KEYS) {
                let len = KEYS.min(keys - start);
                // Queries before see none of these keys.
                let lead = z.first(start).saturating_sub(from) / BLOCK * BLOCK;
                for j in (0..len).step_by(BLOCK) {
                    let first = (z.first(start + j).saturating_sub(from) / BLOCK * BLOCK).min(count);
                    let columns = |units: &'_ [PairUnit], query: usize| -> [std::ops::Range<usize>; 2] {
                        let at = |p: usize| (from + query) / LANES * (dim / 2) + p * (dim / 2);
                        [at(0)..at(1), at(1)..at(2).min(units.len())]
                    };
                    for (left, right, to) in [
                        (&factors.keys, &factors.query_columns, &mut *scores),
                        (&factors.values, &factors.grad_columns, &mut *slopes),
                    ] {
                        let steps = &left[(start + j) * dim / DEPTH..][..BLOCK * dim / DEPTH];
                        let to = Shared::new(to);
                        for query in (first..count).step_by(BLOCK) {
                            let panels = columns(right, query).map(|place| &right[place]);
                            // SAFETY: nobody else has them.
                            let place = unsafe { Place::new(&to, query, wide) };
                            tiles.product(Rows { steps, stride: dim / DEPTH }, panels, &place, false);
                        }
                    }
                    let by_query = [&logs[from..from + count], &common[from..from + count]];
                    for r in 0..BLOCK {
                        let key = start + j + r;
                        let row = r * wide..r * wide + count;
                        let (scores, slopes) = (&mut scores[row.clone()], &mut slopes[row]);
                        // Queries that see the key: of the others the weights are 0.
                        let seen = match key < z.keys && key >= padding {
                            true => z.first(key).saturating_sub(from).clamp(first, count),
                            false => count,
                        };
                        weigh(s, scores, slopes, by_query, z.scale(), first..seen);
                        let steps = r * wide / DEPTH..(r * wide + count) / DEPTH;
                        let place = first / DEPTH;
                        round(s, &scores[first..], &mut weight_rows[steps.clone()][place..]);
                        round(s, &slopes[first..], &mut slope_rows[steps][place..]);
                    }
                    for pair in 0..BLOCK / 2 {
                        let rows = [2 * pair, 2 * pair + 1].map(|r| r * wide);
                        for query in (lead..count).step_by(LANES) {
                            let unit = &mut slope_pairs[query / LANES * (KEYS / 2) + j / 2 + pair];
                            if query < first {
                                *unit = PairUnit::zeroed();
                                continue;
                            }
                            let of = |row: usize| slopes[row + query..].first_chunk().expect("a multiple of sixteen");
                            let (even, odd) = (of(rows[0]), of(rows[1]));
                            s.store_unit(unit, s.load(even), s.load(odd));
                        }
                    }
                    // dV += PT dO, dK += dST Q.
                    for (left, right, to) in [
                        (&*weight_rows, &factors.grad_rows, &mut *value_sums),
                        (&*slope_rows, &factors.query_rows, &mut *key_sums),
                    ] {
                        if first == count {
                            continue;
                        }
                        let to = Shared::new(to);
                        let steps = &left[first / DEPTH..];
                        for column in (0..dim).step_by(BLOCK) {
                            let panel = |p: usize| {
                                let panel = &right[(column / LANES + p) * (queries / 2)..][..queries / 2];
                                &panel[(from + first) / 2..(from + count) / 2]
                            };
                            // SAFETY: nobody else has them.
                            let place = unsafe { Place::new(&to, (start + j) * dim + column, dim) };
                            let x = Rows { steps, stride: wide / DEPTH };
                            tiles.product(x, [panel(0), panel(1)], &place, true);
                        }
                    }
                }
                // dQT += KT dST.
                let to = Shared::new(query_sums);
                for row in (0..dim).step_by(BLOCK) {
                    let steps = &factors.turned_keys[row * keys / DEPTH + start / DEPTH..];
                    let x = Rows { steps, stride: keys / DEPTH };
                    for query in (lead..count).step_by(BLOCK) {
                        let panel = |p: usize| &slope_pairs[(query / LANES + p) * (KEYS / 2)..][..len / 2];
                        // SAFETY: nobody else has them.
                        let place = unsafe { Place::new(&to, row * wide + query, wide) };
                        tiles.product(x, [panel(0), panel(1)], &place, true);
                    }
                }
                met = true;
            }
            if met {
                self.put_queries(query_sums, from, wide);
            }
        }
        for (to, sums, scale) in [(&mut self.k, &*key_sums, z.scale()), (&mut self.v, &*value_sums, 1.0)] {
            for (to, sums) in to.chunks_exact_mut(z.dim).zip(sums.chunks_exact(dim)) {
                to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum * scale);
            }
        }
        scratch.keep();
    }
}

impl<T: Stored, E> Task<'_, T, E> {
    #[inline(always)]
    fn factors<S: Simd>(&self, s: S, [queries, keys, dim]: [usize; 3], factors: &mut Factors) {
        let Inputs { sizes: z, q, k, v, .. } = self.inputs;
        // As the way there rounds them: not scaled yet.
        let query = |i: usize| q.row(self.batch, self.head, i);
        let grad = |i: usize| &self.saved.grad[((self.batch * z.queries + i) * z.heads + self.head) * z.dim..][..z.dim];
        let Factors { query_columns, grad_columns, query_rows, grad_rows, .. } = factors;
        // What is there beside the rows and in their padding must be 0.
        for units in [query_columns, grad_columns, query_rows, grad_rows] {
            units.clear();
            units.resize(queries * dim / (2 * LANES), PairUnit::zeroed());
        }
        for steps in [&mut factors.keys, &mut factors.values, &mut factors.turned_keys] {
            steps.clear();
            steps.resize(keys * dim / DEPTH, Step::zeroed());
        }
        columns(s, &mut factors.query_columns, z.queries, dim, query);
        columns(s, &mut factors.grad_columns, z.queries, dim, grad);
        pairs(s, &mut factors.query_rows, z.queries, dim, query);
        pairs(s, &mut factors.grad_rows, z.queries, dim, grad);
        let kv_head = self.head / z.group();
        let turned: &mut [bf16] = bytemuck::cast_slice_mut(&mut factors.turned_keys);
        for key in 0..z.keys {
            let place = key * dim / DEPTH..(key + 1) * dim / DEPTH;
            round(s, v.row(self.batch, kv_head, key), &mut factors.values[place.clone()]);
            round(s, k.row(self.batch, kv_head, key), &mut factors.keys[place.clone()]);
            let numbers: &[bf16] = bytemuck::cast_slice(&factors.keys[place]);
            for (d, x) in numbers.iter().enumerate() {
                turned[d * keys + key] = *x;
            }
        }
    }

    /// Writes the queries' gradients from `from` on, and clears their sums `[dim, wide]`.
    fn put_queries(&self, sums: &mut [f32], from: usize, wide: usize) {
        let z = self.inputs.sizes;
        for i in from..z.queries.min(from + QUERIES) {
            // SAFETY: no other task has this head, and the piece ends with the iteration.
            let to = unsafe { self.q.piece(((self.batch * z.queries + i) * z.heads + self.head) * z.dim, z.dim) };
            for (d, to) in to.iter_mut().enumerate() {
                *to = sums[d * wide + i - from] * z.scale();
            }
        }
        sums.fill(0.0);
    }
}

/// One key's scores, from `blind.start` on, into weights, and the weights' gradients into the scores' gradients; 0 for the
/// queries of `blind`, which do not see it. Scores are still to be scaled.
#[inline(always)]
fn weigh<S: Simd>(
    s: S,
    scores: &mut [f32],
    slopes: &mut [f32],
    [logs, common]: [&[f32]; 2],
    scale: f32,
    blind: std::ops::Range<usize>,
) {
    let first = blind.start;
    let both = scores[first..].as_chunks_mut().0.iter_mut().zip(slopes[first..].as_chunks_mut().0);
    let by_query = logs[first..].as_chunks().0.iter().zip(common[first..].as_chunks().0);
    for ((score, slope), (log, common)) in both.zip(by_query) {
        let p = s.exp2_coarse(s.sub(s.mul(s.load(score), s.splat(scale * LOG2_E)), s.load(log)));
        s.store(score, p);
        s.store(slope, s.mul(p, s.sub(s.load(slope), s.load(common))));
    }
    scores[blind.clone()].fill(0.0);
    slopes[blind].fill(0.0);
}

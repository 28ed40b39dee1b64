//! Attention of a few queries over many keys: the decoding step.
//!
//! Keys and values are read in place, once for up to three of the rows that share them. The keys are cut into ranges as well as
//! the heads, so that one sequence keeps every core busy; the partial results of the ranges are merged at the end.

use super::super::cpu::{Isa, Kernel};
use super::super::crew;
use super::super::shared::Shared;
use super::super::simd::{Block, LANES, Simd};
use super::softmax::Softmax;
use super::streamed::{AHEAD, all_values, dots, sixteen_dots, values_of_all};
use super::{Inputs, Sizes, Stored, TILE};

/// Most rows (queries times heads of a group) that this way is the faster one for.
const ROWS: usize = 16;

/// Least keys that are worth a task of their own.
const KEYS: usize = 512;

/// Up to so many keys, of all heads and sequences together, one thread takes them all: where others stand ready, and
/// where they sleep.
const ALONE: [usize; 2] = [96, KEYS];

/// Whether a call should come here.
pub(super) fn suits(sizes: &Sizes) -> bool {
    sizes.queries * sizes.group() <= ROWS && sizes.dim.is_multiple_of(LANES)
}

/// As [`super::attention`].
pub(super) fn attention<T: Stored>(isa: Isa, inputs: Inputs<'_, T>, out: &mut [f32], lse: &mut [f32]) {
    let sizes = inputs.sizes;
    let pairs = sizes.batch * sizes.kv_heads;
    let wanted = (2 * rayon::current_num_threads()).div_ceil(pairs);
    let step = sizes.keys.div_ceil(wanted).max(KEYS).next_multiple_of(TILE);
    let ranges = sizes.keys.div_ceil(step).max(1);
    let mut partial = vec![Partial::default(); pairs * ranges];
    let found = Shared::new(&mut partial);
    let task = |t: usize| {
        let (pair, range) = (t / ranges, t % ranges);
        let keys = range * step..sizes.keys.min((range + 1) * step);
        let own = isa.run(Task { inputs, batch: pair / sizes.kv_heads, kv_head: pair % sizes.kv_heads, keys });
        // SAFETY: each task has a number, and a piece, of its own.
        unsafe { found.piece(t, 1) }.fill(own);
    };
    let [ready, asleep] = ALONE;
    if sizes.keys * pairs <= if crew::stands_ready() { ready } else { asleep } {
        (0..pairs * ranges).for_each(task);
    } else {
        crew::each(pairs * ranges, task);
    }
    let dim = sizes.dim;
    for (pair, ranges) in partial.chunks_exact(ranges).enumerate() {
        let (batch, kv_head) = (pair / sizes.kv_heads, pair % sizes.kv_heads);
        for r in 0..sizes.queries * sizes.group() {
            let (head, query) = (kv_head * sizes.group() + r / sizes.queries, r % sizes.queries);
            let at = ((batch * sizes.queries + query) * sizes.heads + head) * dim;
            let log = merge(ranges, r, &mut out[at..at + dim]);
            lse[(batch * sizes.heads + head) * sizes.queries + query] = log;
        }
    }
}

/// What one range of keys contributes to each row.
#[derive(Clone, Default)]
struct Partial {
    state: Vec<Softmax>,
    sums: Vec<Block>,
}

/// Row `r` of all ranges together.
fn merge(ranges: &[Partial], r: usize, out: &mut [f32]) -> f32 {
    let mut total = Softmax::new();
    for range in ranges {
        // A NaN maximum stays out of here; it is in the sum.
        total.max = total.max.max(range.state[r].max);
    }
    out.fill(0.0);
    let blocks = out.len() / LANES;
    for range in ranges {
        let Softmax { max, sum } = range.state[r];
        if max == f32::NEG_INFINITY && sum == 0.0 {
            continue;
        }
        let weight = (max - total.max).exp();
        total.sum += weight * sum;
        for (out, sum) in out.iter_mut().zip(range.sums[r * blocks..].as_flattened()) {
            *out += weight * sum;
        }
    }
    let (scale, log) = total.finish();
    out.iter_mut().for_each(|out| *out *= scale);
    log
}

struct Task<'a, T> {
    inputs: Inputs<'a, T>,
    batch: usize,
    kv_head: usize,
    keys: std::ops::Range<usize>,
}

impl<T: Stored> Kernel for Task<'_, T> {
    type Out = Partial;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Partial {
        let Inputs { sizes, q, k, v, .. } = self.inputs;
        let rows = sizes.queries * sizes.group();
        let blocks = sizes.dim / LANES;
        let mut queries: Vec<Block> = Vec::with_capacity(rows * blocks);
        for r in 0..rows {
            let head = self.kv_head * sizes.group() + r / sizes.queries;
            queries.extend_from_slice(q.row(self.batch, head, r % sizes.queries).as_chunks().0);
        }
        let scale = s.splat(sizes.scale());
        for block in &mut queries {
            s.store(block, s.mul(s.load(block), scale));
        }
        let mut state = vec![Softmax::new(); rows];
        let mut sums: Vec<Block> = vec![[0.0; LANES]; rows * blocks];
        let mut scores = vec![[[0.0; LANES]; TILE / LANES]; rows];
        let mut shrinks = vec![1.0; rows];
        let at_once = S::WIDE && blocks.is_multiple_of(4);
        let mut wide: Vec<Block> = vec![[0.0; LANES]; if rows > 1 && !at_once { TILE * blocks } else { 0 }];
        let padding = self.inputs.padding(self.batch);
        for start in (self.keys.start..self.keys.end).step_by(TILE) {
            let len = TILE.min(self.keys.end - start);
            if start + len <= padding {
                continue;
            }
            let mut next = 0;
            while S::WIDE && blocks == 4 && next + LANES <= len {
                let key = |j: usize| k.row(self.batch, self.kv_head, start + next + j).as_chunks().0;
                sixteen_dots(s, key, &queries, &mut scores, next / LANES);
                next += LANES;
            }
            for j in next..len {
                let key: &[[T; LANES]] = k.row(self.batch, self.kv_head, start + j).as_chunks().0;
                let mut block = 0;
                while block < blocks {
                    block += match blocks - block {
                        4.. => dots::<S, T, 4>(s, key, &queries, &mut scores, j, block),
                        2.. => dots::<S, T, 2>(s, key, &queries, &mut scores, j, block),
                        _ => dots::<S, T, 1>(s, key, &queries, &mut scores, j, block),
                    };
                }
            }
            // Several rows share the values: they are widened once, in registers where there are enough of those.
            for j in 0..if rows > 1 && !at_once { len } else { 0 } {
                let value: &[[T; LANES]] = v.row(self.batch, self.kv_head, start + j).as_chunks().0;
                if let Some(four) = value.first_chunk::<4>() {
                    s.fetch_outer(four, AHEAD);
                }
                for (wide, value) in wide[j * blocks..(j + 1) * blocks].iter_mut().zip(value) {
                    s.store(wide, T::load(s, value));
                }
            }
            for r in 0..rows {
                let seen = sizes.visible(r % sizes.queries).min(start + len).saturating_sub(start);
                shrinks[r] = state[r].tile(s, &mut scores[r], padding.saturating_sub(start)..seen);
            }
            let row = |j: usize| v.row(self.batch, self.kv_head, start + j).as_chunks().0;
            if at_once {
                values_of_all(s, &scores, len, row, &shrinks, &mut sums);
                continue;
            }
            for r in 0..rows {
                let shrink = shrinks[r];
                let weights = &scores[r].as_flattened()[..len];
                let sums = &mut sums[r * blocks..(r + 1) * blocks];
                if rows > 1 {
                    all_values(s, weights, |j| &wide[j * blocks..(j + 1) * blocks], shrink, sums);
                } else {
                    all_values(s, weights, row, shrink, sums);
                }
            }
        }
        Partial { state, sums }
    }
}

//! The softmax of a row of scores that come tile by tile (arXiv 1805.02867).

use super::super::simd::{Block, LANES, Simd};
use super::TILE;
use std::ops::Range;

/// Running maximum and sum of exponentials of one row of scores.
#[derive(Clone, Copy)]
pub(crate) struct Softmax {
    pub(crate) max: f32,
    pub(crate) sum: f32,
}

impl Softmax {
    pub(crate) fn new() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Turns the `seen` scores into exponentials relative to the new maximum and all others into 0; returns the factor
    /// that earlier sums shrink by.
    #[inline(always)]
    pub(crate) fn tile<S: Simd>(&mut self, s: S, scores: &mut [Block; TILE / LANES], seen: Range<usize>) -> f32 {
        if seen.is_empty() {
            scores.as_flattened_mut().fill(0.0);
            return 1.0;
        }
        scores.as_flattened_mut()[..seen.start].fill(f32::NEG_INFINITY);
        scores.as_flattened_mut()[seen.end..].fill(f32::NEG_INFINITY);
        let mut max = s.splat(self.max);
        for block in scores.iter() {
            max = s.max(s.load(block), max);
        }
        let max = s.max_lane(max);
        let mut sum = s.splat(0.0);
        for block in scores.iter_mut() {
            let e = s.exp(s.sub(s.load(block), s.splat(max)));
            s.store(block, e);
            sum = s.add(sum, e);
        }
        let shrink = if self.max == max { 1.0 } else { (self.max - max).exp() };
        self.sum = self.sum * shrink + s.sum(sum);
        self.max = max;
        shrink
    }

    /// The factor that makes sums into averages, and the logarithm of the sum of exponentials.
    pub(crate) fn finish(&self) -> (f32, f32) {
        if self.max == f32::NEG_INFINITY && self.sum == 0.0 {
            return (0.0, f32::NEG_INFINITY);
        }
        (1.0 / self.sum, self.max + self.sum.ln())
    }
}

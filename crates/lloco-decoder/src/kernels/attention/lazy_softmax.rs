//! The softmax of a row of scores that come block by block, whose exponentials may grow beyond 1.
//!
//! What they are relative to is the largest score of the first block that the row sees a key of, and changes only where a
//! later score is so much larger that numbers would run out ([`LIMIT`]). So no exponential waits for a maximum, and sums that
//! exist already are hardly ever scaled. f32 and bf16 say a large number as exactly as a small one.

use super::super::simd::{Block, LANES, PairUnit, Simd};
use std::f32::consts::{LN_2, LOG2_E};

/// Powers of two that an exponential may grow to.
const LIMIT: f32 = 40.0;

/// Exponents and sums of the exponentials of one row of scores.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct LazySoftmax {
    /// Lane by lane.
    sums: Block,
    /// What the exponents are relative to, in powers of two.
    top: f32,
}

impl LazySoftmax {
    pub(crate) fn new() -> Self {
        // Any score is above the limit of this one, and none is not.
        Self { top: f32::MIN, sums: [0.0; LANES] }
    }

    /// The exponentials of two blocks of scores, rounded, in turns: 0 of those that are negative infinity. `scale` is the
    /// scores'. Where it returns a factor, the row's earlier exponentials are to be multiplied by it.
    #[inline(always)]
    pub(crate) fn block<S: Simd>(&mut self, s: S, scores: &[Block; 2], scale: f32, to: &mut PairUnit) -> Option<f32> {
        let scale = scale * LOG2_E;
        let steps = s.splat(scale);
        let mut below = s.splat(-self.top);
        let [even, odd] = scores;
        let mut exponents = [s.fma(s.load(even), steps, below), s.fma(s.load(odd), steps, below)];
        let mut shrunk = None;
        if s.any_above(s.max(exponents[0], exponents[1]), LIMIT) {
            shrunk = Some(self.raise(s.max_lane(s.max(s.load(even), s.load(odd))) * scale));
            below = s.splat(-self.top);
            exponents = [s.fma(s.load(even), steps, below), s.fma(s.load(odd), steps, below)];
        }
        let [even, odd] = [s.exp2_coarse(exponents[0]), s.exp2_coarse(exponents[1])];
        s.store_unit_positive(to, even, odd);
        let sums = s.add(s.load(&self.sums), s.add(even, odd));
        s.store(&mut self.sums, sums);
        shrunk
    }

    /// Makes exponents relative to `top`.
    #[inline(always)]
    fn raise(&mut self, top: f32) -> f32 {
        let shrunk = (self.top - top).exp2();
        self.sums = self.sums.map(|sum| sum * shrunk);
        self.top = top;
        shrunk
    }

    /// Of a row that has seen a key: the factor that makes sums into averages, and the logarithm of the sum of
    /// exponentials.
    #[inline(always)]
    pub(crate) fn finish<S: Simd>(&self, s: S) -> (f32, f32) {
        let sum = s.sum(s.load(&self.sums));
        (1.0 / sum, self.top * LN_2 + sum.ln())
    }
}

//! Weights in blocks of 32 inputs with a scale each: eight bits (8.5 with the scale), or four (5 with scale and minimum).
//!
//! The numbers are those of GGUF's `Q8_0`, `Q4_0` and `Q4_1`, bit for bit; only their order is a panel's. Other blocks become
//! these, a few at a time:
//!
//! | of GGUF | becomes | largest error |
//! |---|---|---|
//! | `Q5_0` | eight bits, the same numbers | none |
//! | `Q4_K` | four bits, the same numbers | scale and minimum are rounded to f16: 2^-11 of each |
//! | `Q5_1`, `Q5_K`, `Q6_K` | eight bits, quantised | half a step of 127: 1/253 of the block's largest weight |
//!
//! Where a scale is below f16's normal numbers, steps are multiples of 2^-24. Scale and minimum of `Q4_K` are such
//! multiples, so there they lose nothing. Neither do weights of the others up to 127 steps of 2^-24; larger ones are at most
//! 1/127 of the block's largest weight off.

mod bytes;
mod nibbles;

use super::pages::Pages;
use super::rows::each_piece;
use super::simd::{LANES, PairUnit, Simd};
use bytemuck::{Pod, Zeroable};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use bytes::{Bytes, from_q5_0, from_q8_0, requantised};
pub(crate) use nibbles::{FineNibbles, Nibbles, from_q4, from_q4_k};

/// Inputs of one block.
pub(crate) const BLOCK: usize = 32;

/// Pairs of inputs of one block.
pub(crate) const PAIRS: usize = BLOCK / 2;

/// Of one block of `R` rows of x: scales, and sums of the f32 numbers.
pub(crate) type Parts<'a, const R: usize> = [&'a [f32; R]; 2];

/// A block of sixteen outputs, as it is stored.
pub(crate) trait Stored: Copy + Send + Sync + Zeroable + 'static {
    /// Stores 32 weights of one output as well as possible; `false` if one is not finite or beyond an f16 scale.
    #[must_use]
    fn quantise(&mut self, output: usize, weights: &[f32; BLOCK]) -> bool;
    /// Reads one weight.
    fn get(&self, output: usize, input: usize) -> f32;
    /// All weights, rounded to bf16.
    fn unpack<S: Simd>(&self, s: S, to: &mut [PairUnit; PAIRS]);
}

/// A block of sixteen outputs, as it is multiplied.
pub(crate) trait Block32: Copy + Send + Sync + 'static {
    /// The block with its numbers apart, ready to multiply.
    type Wide: Copy;
    /// Neighbouring inputs of x, as integers that suit the weights: two or four.
    /// Of the size of an f32.
    type Unit: Pod + Send + Sync;
    /// Units of a block.
    const UNITS: usize;
    /// The largest such integer.
    const STEPS: f32;

    /// An empty wide block.
    fn blank() -> Self::Wide;
    /// Fills a wide block.
    fn widen<S: Simd>(&self, s: S, to: &mut Self::Wide);
    /// The units of 32 numbers within `-STEPS..=STEPS`; any others are cut off, and their scale is NaN.
    fn units(numbers: &[i32; BLOCK]) -> impl Iterator<Item = Self::Unit>;
    /// `sums[r] += ` the product of the block with `x[..][r]`, row r's units, whose scales and sums are `parts`.
    fn multiply<S: Simd, const R: usize>(
        wide: &Self::Wide,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    );
    /// As [`Block32::multiply`], straight from memory.
    fn multiply_once<S: Simd, const R: usize>(
        &self,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    );
}

/// The sums of a block's products with `R` rows, as 32-bit integers: 32 * 127 * 32767 is far from 2^31.
#[inline(always)]
fn dot_pairs<S: Simd, const R: usize>(s: S, numbers: &[[[i16; 2]; LANES]; PAIRS], x: &[[[i16; 2]; R]]) -> [S::I; R] {
    let x = &x[..PAIRS];
    let mut dots = [s.zero(); R];
    for i in 0..PAIRS {
        let w = s.load_pairs(&numbers[i]);
        for r in 0..R {
            dots[r] = s.dot_pairs::<R>(dots[r], w, s.splat_pair(x[i][r]));
        }
    }
    dots
}

/// Blocks of one panel over `cols` inputs.
pub(crate) fn panel_len(cols: usize) -> usize {
    cols.div_ceil(BLOCK)
}

/// `weight(row, column)` in blocks; `None` if a number is not finite or too large for a scale in f16.
pub(crate) fn quantise<B: Stored>(
    rows: usize,
    cols: usize,
    weight: impl Fn(usize, usize) -> f32 + Sync,
) -> Option<Pages<B>> {
    fill(rows, cols, |block: &mut B, output, row, start| {
        let mut weights = [0.0; BLOCK];
        weights.iter_mut().zip(start..cols).for_each(|(to, column)| *to = weight(row, column));
        block.quantise(output, &weights)
    })
}

/// Blocks of all panels, each output of each made by `set(block, output, row, first input)`; `None` if one returned `false`.
fn fill<B: Stored>(
    rows: usize,
    cols: usize,
    set: impl Fn(&mut B, usize, usize, usize) -> bool + Sync,
) -> Option<Pages<B>> {
    fill_runs(rows, cols, 1, |run, output, row, start| run.iter_mut().all(|block| set(block, output, row, start)))
}

/// As [`fill`], `run` neighbouring blocks at once, if there are so many.
fn fill_runs<B: Stored>(
    rows: usize,
    cols: usize,
    run: usize,
    set: impl Fn(&mut [B], usize, usize, usize) -> bool + Sync,
) -> Option<Pages<B>> {
    let len = panel_len(cols);
    let mut blocks = Pages::<B>::zeroed(rows.div_ceil(LANES) * len);
    let fine = AtomicBool::new(true);
    each_piece(&mut blocks, len, |p, panel| {
        let all = panel.chunks_mut(run).enumerate().all(|(i, blocks)| {
            let mut rows = (p * LANES..rows.min((p + 1) * LANES)).enumerate();
            rows.all(|(output, row)| set(blocks, output, row, i * run * BLOCK))
        });
        fine.fetch_and(all, Ordering::Relaxed);
    });
    fine.into_inner().then_some(blocks)
}

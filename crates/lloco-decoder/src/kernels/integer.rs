//! `out = x wT` with weights in blocks of 32, by integer products.
//!
//! A row of x is cut into the same blocks of 32, and each becomes integers with a scale: 16 bits beside 8-bit weights, 8
//! bits beside 4-bit weights. The sums of a block are exact.

use super::blocks::{BLOCK, Block32, panel_len};
use super::cpu::{Isa, Kernel};
use super::linear::Cut;
use super::shared::Shared;
use super::simd::{LANES, Simd};
use bytemuck::Zeroable;
use rayon::prelude::*;
use std::ops::Range;

/// Up to so many rows, weights are widened in registers.
const FEW: usize = 4;

/// Blocks of a panel that are widened at once for many rows: some 8 KiB.
const STRETCH: usize = 12;

/// `x` `[rows, k]` times the transpose of the weight in `blocks`, into `out` `[rows, n]`.
pub(crate) fn linear<B: Block32>(isa: Isa, x: &[f32], blocks: &[B], out: &mut [f32], [rows, k, n]: [usize; 3]) {
    let x = Rows::<B>::new(isa, x, rows, k);
    let out = Shared::new(out);
    let len = panel_len(k);
    Cut::new([rows, k, n], 128 * 1024 / k, 12).each(|rows, panels| {
        isa.run(Task { x: &x, blocks, len, out: &out, rows, panels, n });
    });
}

/// Rows of x as integers, `[rows, len]` blocks.
struct Rows<B: Block32> {
    numbers: Vec<B::Inputs>,
    /// Scale, and sum of the f32 numbers, of each block.
    parts: Vec<[f32; 2]>,
}

impl<B: Block32> Rows<B> {
    fn new(isa: Isa, x: &[f32], rows: usize, k: usize) -> Self {
        let len = panel_len(k);
        let mut numbers = vec![B::Inputs::zeroed(); rows * len];
        let mut parts = vec![[0.0; 2]; rows * len];
        let to = numbers.par_chunks_exact_mut(len).zip(parts.par_chunks_exact_mut(len));
        let all = to.zip(x.par_chunks_exact(k)).with_min_len(16 * 1024 / k + 1);
        all.for_each(|((numbers, parts), x)| isa.run(Convert::<B> { x, numbers, parts }));
        Self { numbers, parts }
    }
}

struct Convert<'a, B: Block32> {
    x: &'a [f32],
    numbers: &'a mut [B::Inputs],
    parts: &'a mut [[f32; 2]],
}

impl<B: Block32> Kernel for Convert<'_, B> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let to = self.numbers.iter_mut().zip(self.parts);
        for (x, (numbers, parts)) in self.x.chunks(BLOCK).zip(to) {
            let (low, high) = x.split_at(x.len().min(LANES));
            let (low, high) = (s.load_part(low), s.load_part(high));
            let size = |x| s.max(x, s.sub(s.splat(0.0), x));
            let largest = s.max_lane(s.max(size(low), size(high)));
            let sum = s.sum(s.add(low, high));
            // A sum that is not finite tells of NaN and infinity, which the maximum may have missed.
            let scale = if sum.is_finite() && largest < f32::MAX { largest / B::STEPS } else { f32::NAN };
            *parts = [scale, sum];
            let inverse = s.splat(if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 });
            let mut rounded = [[0; LANES]; 2];
            s.store_int(&mut rounded[0], s.to_int(s.mul(low, inverse)));
            s.store_int(&mut rounded[1], s.to_int(s.mul(high, inverse)));
            *numbers = B::inputs(rounded.as_flattened());
        }
    }
}

/// One thread's share: all outputs of `panels` for `rows`.
struct Task<'a, B: Block32> {
    x: &'a Rows<B>,
    blocks: &'a [B],
    /// Blocks of a panel.
    len: usize,
    out: &'a Shared<'a, f32>,
    rows: Range<usize>,
    panels: Range<usize>,
    n: usize,
}

impl<B: Block32> Kernel for Task<'_, B> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.rows.len() <= FEW {
            for panel in self.panels.clone() {
                self.few(s, panel);
            }
            return;
        }
        let mut wide = [B::blank(); STRETCH];
        for panel in self.panels.clone() {
            for start in (0..self.len).step_by(STRETCH) {
                let blocks = start..self.len.min(start + STRETCH);
                for (wide, block) in wide.iter_mut().zip(&self.blocks[panel * self.len..][blocks.clone()]) {
                    block.widen(s, wide);
                }
                let wide = &wide[..blocks.len()];
                let mut row = self.rows.start;
                while row < self.rows.end {
                    row += match self.rows.end - row {
                        12.. if S::WIDE => self.tile::<S, 12>(s, row, panel, start, wide),
                        6.. => self.tile::<S, 6>(s, row, panel, start, wide),
                        3.. => self.tile::<S, 3>(s, row, panel, start, wide),
                        _ => self.tile::<S, 1>(s, row, panel, start, wide),
                    };
                }
            }
        }
    }
}

impl<B: Block32> Task<'_, B> {
    /// `R` rows by one stretch of a panel; returns `R`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, s: S, row: usize, panel: usize, start: usize, wide: &[B::Wide]) -> usize {
        let mut sums = [s.splat(0.0); R];
        for (b, wide) in wide.iter().enumerate() {
            let (x, parts) = self.inputs(row, start + b);
            B::multiply(wide, s, x, parts, &mut sums);
        }
        self.put(s, row, panel, sums, start == 0);
        R
    }

    /// All rows by one panel, each weight read once.
    #[inline(always)]
    fn few<S: Simd>(&self, s: S, panel: usize) {
        let mut row = self.rows.start;
        while row < self.rows.end {
            row += match self.rows.end - row {
                4.. => self.line::<S, 4>(s, row, panel),
                2.. => self.line::<S, 2>(s, row, panel),
                _ => self.line::<S, 1>(s, row, panel),
            };
        }
    }

    #[inline(always)]
    fn line<S: Simd, const R: usize>(&self, s: S, row: usize, panel: usize) -> usize {
        let mut sums = [s.splat(0.0); R];
        for (b, block) in self.blocks[panel * self.len..][..self.len].iter().enumerate() {
            let (x, parts) = self.inputs(row, b);
            block.multiply_once(s, x, parts, &mut sums);
        }
        self.put(s, row, panel, sums, true);
        R
    }

    /// Block `b` of `R` rows, with scales and sums.
    #[inline(always)]
    fn inputs<const R: usize>(&self, row: usize, b: usize) -> ([&B::Inputs; R], [[f32; 2]; R]) {
        let mut parts = [[0.0; 2]; R];
        let mut x = [&self.x.numbers[row * self.len + b]; R];
        for r in 0..R {
            let at = (row + r) * self.len + b;
            (x[r], parts[r]) = (&self.x.numbers[at], self.x.parts[at]);
        }
        (x, parts)
    }

    #[inline(always)]
    fn put<S: Simd, const R: usize>(&self, s: S, row: usize, panel: usize, sums: [S::F; R], first: bool) {
        let column = panel * LANES;
        for (r, sum) in sums.into_iter().enumerate() {
            // SAFETY: the tasks of one product have no row and column in common, and this piece ends with the turn.
            let out = unsafe { self.out.piece((row + r) * self.n + column, LANES.min(self.n - column)) };
            let sum = if first { sum } else { s.add(s.load_part(out), sum) };
            s.store_part(out, sum);
        }
    }
}

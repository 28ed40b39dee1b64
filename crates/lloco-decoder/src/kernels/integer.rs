//! `out = x wT` with weights in blocks of 32, by integer products.
//!
//! A row of x is cut into the same blocks of 32, and each becomes integers with a scale: 16 bits, or 8 beside 4-bit
//! weights that are to be fast. The sums of a block are exact.

use super::blocks::{BLOCK, Block32, Parts, panel_len};
use super::cpu::{Isa, Kernel};
use super::cut::{Cut, Work};
use super::reuse::Buffer;
use super::rows::each_piece_of_two;
use super::shared::Shared;
use super::simd::{LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// Up to so many rows, weights are widened in registers.
const FEW: usize = 4;

/// Blocks that are asked for before they are needed: some kilobytes. The next panel lies behind this one.
const AHEAD: usize = 12;

/// Blocks of a panel that are widened at once for many rows: some 8 KiB.
const STRETCH: usize = 12;

/// `x`, of `rows` times `k` numbers, times the transpose of the weight in `blocks`, into `out` `[rows, n]`.
pub(crate) fn linear<'a, B: Block32>(
    isa: Isa,
    x: &'a Rows<B>,
    blocks: &'a [B],
    out: &'a mut [f32],
    [rows, k, n]: [usize; 3],
) -> Work<'a> {
    let out = Shared::new(out);
    let len = panel_len(k);
    Cut::new([rows, k, n], (128 * 1024 / k).clamp(1, 480), [MOST, 4]).work(move |rows, panels| {
        isa.run(Task { x, blocks, len, out: &out, rows, panels, n });
    })
}

/// Rows of a tile, at most.
const MOST: usize = 12;

/// How many of the `left` rows the next tile takes. From any multiple of [`MOST`] on, the tiles are the same.
#[inline(always)]
fn together(left: usize, wide: bool) -> usize {
    match left {
        MOST.. if wide => MOST,
        6.. => 6,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Rows of x as integers. Those that a tile takes together are interleaved, so that it reads one stream.
pub(crate) struct Rows<B: Block32> {
    /// Units, of each tile `[block, unit, row]`.
    numbers: Buffer,
    /// Of each tile `[block, scale or sum of the f32 numbers, row]`.
    parts: Buffer,
    of: PhantomData<B>,
}

impl<B: Block32> Rows<B> {
    /// `x` `[rows, k]`.
    pub(crate) fn new(isa: Isa, x: &[f32], rows: usize, k: usize) -> Self {
        let len = panel_len(k);
        let (mut numbers, mut parts) = (Buffer::new(rows * len * B::UNITS), Buffer::new(rows * len * 2));
        let units: &mut [B::Unit] = bytemuck::cast_slice_mut(&mut numbers);
        let tiles = 1024 / k + 1;
        let [units_each, parts_each, x_each] = [len * B::UNITS, len * 2, k].map(|row| tiles * MOST * row);
        each_piece_of_two(units, units_each, &mut parts, parts_each, |i, units, parts| {
            let x = &x[i * x_each..x.len().min((i + 1) * x_each)];
            let to = units.chunks_mut(MOST * len * B::UNITS).zip(parts.chunks_mut(MOST * len * 2));
            for ((units, parts), x) in to.zip(x.chunks(MOST * k)) {
                isa.run(Convert::<B> { x, k, units, parts });
            }
        });
        Self { numbers, parts, of: PhantomData }
    }
}

/// Up to [`MOST`] rows.
struct Convert<'a, B: Block32> {
    x: &'a [f32],
    k: usize,
    units: &'a mut [B::Unit],
    parts: &'a mut [f32],
}

impl<B: Block32> Kernel for Convert<'_, B> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (rows, len) = (self.x.len() / self.k, panel_len(self.k));
        let mut first = 0;
        while first < rows {
            let tile = together(rows - first, S::WIDE);
            let units = &mut self.units[first * len * B::UNITS..][..tile * len * B::UNITS];
            let parts = &mut self.parts[first * len * 2..][..tile * len * 2];
            for (r, x) in self.x[first * self.k..].chunks_exact(self.k).take(tile).enumerate() {
                let to = units.chunks_exact_mut(B::UNITS * tile).zip(parts.chunks_exact_mut(2 * tile));
                for (x, (units, parts)) in x.chunks(BLOCK).zip(to) {
                    let (low, high) = x.split_at(x.len().min(LANES));
                    let (low, high) = (s.load_part(low), s.load_part(high));
                    let size = |x| s.max(x, s.sub(s.splat(0.0), x));
                    let largest = s.max_lane(s.max(size(low), size(high)));
                    let sum = s.sum(s.add(low, high));
                    // A sum that is not finite tells of NaN and infinity, which the maximum may have missed.
                    let scale = if sum.is_finite() && largest < f32::MAX { largest / B::STEPS } else { f32::NAN };
                    (parts[r], parts[tile + r]) = (scale, sum);
                    let inverse = s.splat(if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 });
                    let mut rounded = [0; BLOCK];
                    let (halves, _) = rounded.as_chunks_mut::<LANES>();
                    s.store_int(&mut halves[0], s.to_int(s.mul(low, inverse)));
                    s.store_int(&mut halves[1], s.to_int(s.mul(high, inverse)));
                    for (to, unit) in units.iter_mut().skip(r).step_by(tile).zip(B::units(&rounded)) {
                        *to = unit;
                    }
                }
            }
            first += tile;
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
                    row += match together(self.rows.end - row, S::WIDE) {
                        MOST => self.tile::<S, MOST>(s, row, panel, start, wide),
                        6 => self.tile::<S, 6>(s, row, panel, start, wide),
                        4 => self.tile::<S, 4>(s, row, panel, start, wide),
                        2 => self.tile::<S, 2>(s, row, panel, start, wide),
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
        let of = self.inputs::<R>(row, start);
        for (wide, (x, parts)) in wide.iter().zip(of) {
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
            row += match together(self.rows.end - row, S::WIDE) {
                4 => self.line::<S, 4>(s, row, panel),
                2 => self.line::<S, 2>(s, row, panel),
                _ => self.line::<S, 1>(s, row, panel),
            };
        }
    }

    #[inline(always)]
    fn line<S: Simd, const R: usize>(&self, s: S, row: usize, panel: usize) -> usize {
        let mut sums = [s.splat(0.0); R];
        let blocks = &self.blocks[panel * self.len..][..self.len];
        for (block, (x, parts)) in blocks.iter().zip(self.inputs::<R>(row, 0)) {
            s.fetch(block, AHEAD);
            block.multiply_once(s, x, parts, &mut sums);
        }
        self.put(s, row, panel, sums, true);
        R
    }

    /// The blocks of the tile of `R` rows that begins at `row`, from block `start` on.
    #[inline(always)]
    fn inputs<const R: usize>(
        &self,
        row: usize,
        start: usize,
    ) -> impl Iterator<Item = (&[[B::Unit; R]], Parts<'_, R>)> {
        let units: &[B::Unit] = bytemuck::cast_slice(&self.x.numbers);
        let units = units[(row * self.len + R * start) * B::UNITS..].as_chunks().0;
        let parts = self.x.parts[(row * self.len + R * start) * 2..].as_chunks().0;
        let pairs = parts.as_chunks().0.iter().map(|[scales, sums]| [scales, sums]);
        units.chunks_exact(B::UNITS).zip(pairs)
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

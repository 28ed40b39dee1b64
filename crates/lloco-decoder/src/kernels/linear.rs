//! `out = x wT` with packed frozen weights, by FMA: every instruction set has this path, and it keeps x in f32.
//!
//! The output is cut into tasks of some rows times some panels. Many rows: a stretch of a panel is widened to f32 in
//! the first-level cache, and all rows of the task meet it there. Few rows (decoding): weights are read once, straight
//! from memory, and widened in registers.

use super::cpu::{Isa, Kernel};
use super::cut::{Cut, Work};
use super::pack::{Unit, panel_len};
use super::shared::Shared;
use super::simd::{LANES, Simd};
use super::tile::{Left, Output, Right, STRETCH, Sink, TASK_BYTES, product};
use std::ops::Range;

/// Up to so many rows, widening in registers is the faster way.
const FEW: usize = 8;

/// `x` `[rows, k]` times the transpose of the weight in `units`, into `out` `[rows, n]`. `k` is even.
pub(crate) fn linear<'a, U: Unit>(
    isa: Isa,
    x: &'a [f32],
    units: &'a [U],
    out: &'a mut [f32],
    [rows, k, n]: [usize; 3],
) -> Work<'a> {
    let out = Shared::new(out);
    Cut::new([rows, k, n], (TASK_BYTES / (4 * k)).clamp(1, 480), [12, 4]).work(move |rows, panels| {
        isa.run(Task { x, units, out: &out, rows, panels, k, n, len: panel_len(k) });
    })
}

/// One thread's share: all outputs of `panels` for `rows`.
struct Task<'a, U> {
    x: &'a [f32],
    units: &'a [U],
    out: &'a Shared<'a, f32>,
    rows: Range<usize>,
    panels: Range<usize>,
    k: usize,
    n: usize,
    len: usize,
}

impl<U: Unit> Kernel for Task<'_, U> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.rows.len() > FEW {
            return self.stretches(s);
        }
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            panel += match (self.rows.len(), self.panels.end - panel) {
                (1, 4..) => self.few::<S, 4>(s, panel),
                (1..=3, 2..) => self.few::<S, 2>(s, panel),
                _ => self.few::<S, 1>(s, panel),
            };
        }
    }
}

impl<U: Unit> Task<'_, U> {
    /// The units of one panel, without the padding.
    #[inline(always)]
    fn panel(&self, panel: usize) -> &[U] {
        &self.units[panel * self.len..][..self.k / 2]
    }

    /// Where sums go, `panel` being the first.
    #[inline(always)]
    fn output(&self, panel: usize, add: bool) -> Output<'_> {
        Output { out: self.out, width: self.n, panel, scale: 1.0, add }
    }

    /// Many rows: panels widened a stretch at a time.
    #[inline(always)]
    fn stretches<S: Simd>(&self, s: S) {
        let mut wide = [[0.0; LANES]; STRETCH];
        let together = if S::WIDE { 2 } else { 1 };
        let stretch = STRETCH / together;
        for panel in self.panels.clone().step_by(together) {
            let count = together.min(self.panels.end - panel);
            for start in (0..self.k).step_by(stretch) {
                let depth = stretch.min(self.k - start);
                for p in 0..count {
                    let units = &self.panel(panel + p)[start / 2..(start + depth) / 2];
                    for (wide, unit) in wide[p * stretch..].as_chunks_mut::<2>().0.iter_mut().zip(units) {
                        s.store(&mut wide[0], unit.even(s));
                        s.store(&mut wide[1], unit.odd(s));
                    }
                }
                let left = Left { data: &self.x[start..], stride: self.k, depth };
                let right = Right { panels: &wide, stride: stretch, count };
                product(s, left, self.rows.clone(), right, &mut self.output(panel, start > 0));
            }
        }
    }

    /// Few rows against `P` panels, each weight read once; returns `P`.
    #[inline(always)]
    fn few<S: Simd, const P: usize>(&self, s: S, panel: usize) -> usize {
        let mut row = self.rows.start;
        while row < self.rows.end {
            row += match (self.rows.end - row, P) {
                (1, _) => self.tile::<S, 1, P>(s, row, panel),
                (2, _) => self.tile::<S, 2, P>(s, row, panel),
                (3 | 6, 1 | 2) => self.tile::<S, 3, P>(s, row, panel),
                (5, 1) => self.tile::<S, 5, P>(s, row, panel),
                (4.., 1) => self.tile::<S, 4, P>(s, row, panel),
                _ => self.tile::<S, 1, P>(s, row, panel),
            };
        }
        P
    }

    /// `R` rows by `P` panels with the sums in registers; returns `R`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize>(&self, s: S, row: usize, panel: usize) -> usize {
        let pairs = self.k / 2;
        let x: [&[[f32; 2]]; R] =
            std::array::from_fn(|r| &self.x[(row + r) * self.k..][..self.k].as_chunks().0[..pairs]);
        let w: [&[U]; P] = std::array::from_fn(|p| self.panel(panel + p));
        let mut sums = [[s.splat(0.0); P]; R];
        for i in 0..pairs {
            // SAFETY: `i < pairs`, the length of all of `x` and `w`.
            let x = |r: usize, of: usize| s.splat(unsafe { x[r].get_unchecked(i)[of] });
            for p in 0..P {
                // SAFETY: as above.
                let unit = unsafe { w[p].get_unchecked(i) };
                let even = unit.even(s);
                for r in 0..R {
                    sums[r][p] = s.fma(even, x(r, 0), sums[r][p]);
                }
                let odd = unit.odd(s);
                for r in 0..R {
                    sums[r][p] = s.fma(odd, x(r, 1), sums[r][p]);
                }
            }
        }
        let mut out = self.output(panel, false);
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                out.put(s, row + r, p, sum);
            }
        }
        R
    }
}

//! `out = x wT` with packed frozen weights, by FMA: every instruction set has this path, and it keeps x in f32.
//!
//! The output is cut into tasks of some rows times some panels. Many rows: a stretch of a panel is widened to f32 in
//! the first-level cache, and all rows of the task meet it there. Few rows (decoding): weights are read once, straight
//! from memory, and widened in registers.

use super::blocks::FineNibbles;
use super::cpu::{Isa, Kernel};
use super::crew;
use super::pack::{Inputs, PackedLinear, Panels, Unit, panel_len};
use super::shared::Shared;
use super::simd::{LANES, Simd};
use super::tile::{Left, Right, Sink, product, write};
use std::ops::Range;

/// Rows of x that one task keeps in the second-level cache, in bytes.
const TASK_BYTES: usize = 192 * 1024;

/// Inputs of a widened panel that stay in the first-level cache: 16 KiB.
const STRETCH: usize = 256;

/// Up to so many rows, widening in registers is the faster way.
const FEW: usize = 8;

/// `x` `[rows, cols_in]` times the transpose of `w` `[rows_out, cols_in]`, into `out` `[rows, rows_out]`.
///
/// # Panics
/// If the lengths of `x` and `out` do not fit `w`.
pub(crate) fn linear(isa: Isa, x: &[f32], w: &PackedLinear, out: &mut [f32]) {
    let [n, k] = w.shape();
    if n == 0 || out.is_empty() {
        return;
    }
    let rows = out.len() / n;
    assert_eq!((rows * n, rows * k), (out.len(), x.len()), "linear of shape [{n}, {k}]");
    if k == 0 {
        return out.fill(0.0);
    }
    let sizes = [rows, k, n];
    match w.panels() {
        Panels::Bf16(units) if isa >= Isa::Avx512Bf16 => super::halves::linear(isa, x, units, out, sizes),
        Panels::Bf16(units) => in_pairs(isa, x, units, out, sizes),
        Panels::F32(units) => in_pairs(isa, x, units, out, sizes),
        Panels::Int8(blocks) => super::integer::linear(isa, x, blocks, out, sizes),
        Panels::Q4(blocks, Inputs::Coarse) => super::integer::linear(isa, x, blocks, out, sizes),
        Panels::Q4(blocks, Inputs::Fine) => super::integer::linear(isa, x, FineNibbles::of(blocks), out, sizes),
    }
}

/// The kernels here take inputs in pairs; the packed weights are zero beyond the last.
fn in_pairs<U: Unit>(isa: Isa, x: &[f32], units: &[U], out: &mut [f32], [rows, k, n]: [usize; 3]) {
    if k % 2 == 1 {
        let padded: Vec<f32> = x.chunks_exact(k).flat_map(|row| row.iter().copied().chain([0.0])).collect();
        return split(isa, &padded, units, out, [rows, k + 1, n]);
    }
    split(isa, x, units, out, [rows, k, n]);
}

fn split<U: Unit>(isa: Isa, x: &[f32], units: &[U], out: &mut [f32], [rows, k, n]: [usize; 3]) {
    let cut = Cut::new([rows, k, n], TASK_BYTES / (4 * k), 12);
    let out = Shared::new(out);
    cut.each(|rows, panels| isa.run(Task { x, units, out: &out, rows, panels, k, n, len: panel_len(k) }));
}

/// How a product is cut into tasks.
pub(crate) struct Cut {
    rows: usize,
    row_step: usize,
    panels: usize,
    panel_step: usize,
}

impl Cut {
    /// Tasks of about `at_once` rows, a multiple of `multiple`; enough of them to share out evenly, none tiny.
    pub(crate) fn new([rows, k, n]: [usize; 3], at_once: usize, multiple: usize) -> Self {
        let panels = n.div_ceil(LANES);
        let row_step = at_once.clamp(1, 480).next_multiple_of(multiple).min(rows);
        let wanted = (4 * rayon::current_num_threads()).div_ceil(rows.div_ceil(row_step));
        let worth = (row_step * k * n).div_ceil(1 << 18);
        let panel_step = panels.div_ceil(wanted.min(worth)).next_multiple_of(4);
        Self { rows, row_step, panels, panel_step }
    }

    /// Runs `task(rows, panels)` for all of them, in parallel if there are several.
    pub(crate) fn each(&self, task: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let across = self.panels.div_ceil(self.panel_step);
        let run = |t: usize| {
            let (row, panel) = (t / across * self.row_step, t % across * self.panel_step);
            task(row..self.rows.min(row + self.row_step), panel..self.panels.min(panel + self.panel_step));
        };
        crew::each(self.rows.div_ceil(self.row_step) * across, run);
    }
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
                product(s, left, self.rows.clone(), right, &mut Out { task: self, panel, first: start == 0 });
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
        let mut out = Out { task: self, panel, first: true };
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                out.put(s, row + r, p, sum);
            }
        }
        R
    }
}

/// Stores or adds sums to the output of a task, `panel` being the first.
struct Out<'a, 't, U> {
    task: &'t Task<'a, U>,
    panel: usize,
    first: bool,
}

impl<U: Unit, S: Simd> Sink<S> for Out<'_, '_, U> {
    #[inline(always)]
    fn put(&mut self, s: S, row: usize, panel: usize, sum: S::F) {
        let column = (self.panel + panel) * LANES;
        let width = LANES.min(self.task.n - column);
        // SAFETY: the tasks of one product have no row and column in common, and this piece ends with the call.
        let out = unsafe { self.task.out.piece(row * self.task.n + column, width) };
        write(s, out, sum, !self.first);
    }
}

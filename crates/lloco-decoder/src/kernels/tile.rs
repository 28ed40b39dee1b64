//! The inner loop of every matrix product: some rows times one or two panels of sixteen columns, sums in registers.

use super::shared::Shared;
use super::simd::{Block, LANES, Simd};
use std::ops::Range;

/// Rows of the left matrix that one task keeps in the second-level cache, in bytes.
pub(crate) const TASK_BYTES: usize = 192 * 1024;

/// Depth of a panel that stays in the first-level cache: 16 KiB.
pub(crate) const STRETCH: usize = 256;

/// Steps of the inner loop that are written out one after the other.
const STEPS: usize = 4;

/// Takes the finished sums: sixteen columns of one row.
pub(crate) trait Sink<S: Simd> {
    /// `sum` belongs to `row`, columns `16 * panel ..`. Must be `#[inline(always)]`.
    fn put(&mut self, s: S, row: usize, panel: usize, sum: S::F);
}

/// The rows of an output, `width` wide, that the tasks of one product write together.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a Shared<'a, f32>,
    pub(crate) width: usize,
    /// The output's panel that is the product's first.
    pub(crate) panel: usize,
    pub(crate) scale: f32,
    /// Whether sums are added to what is there.
    pub(crate) add: bool,
}

impl<S: Simd> Sink<S> for Output<'_> {
    #[inline(always)]
    fn put(&mut self, s: S, row: usize, panel: usize, sum: S::F) {
        let column = (self.panel + panel) * LANES;
        // SAFETY: the tasks of one product have no row and column in common, and this piece ends with the call.
        let out = unsafe { self.out.piece(row * self.width + column, LANES.min(self.width - column)) };
        let sum = s.mul(sum, s.splat(self.scale));
        s.store_part(out, if self.add { s.add(s.load_part(out), sum) } else { sum });
    }
}

/// Rows of `depth` numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) depth: usize,
}

impl<'a> Left<'a> {
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.depth]
    }
}

/// Panels of sixteen columns by `depth` rows, `stride` blocks apart.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) panels: &'a [Block],
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

/// Multiplies `rows` of `left` with all of `right`. A panel meets all rows before the next one does.
#[inline(always)]
pub(crate) fn product<S: Simd>(s: S, left: Left<'_>, rows: Range<usize>, right: Right<'_>, sink: &mut impl Sink<S>) {
    let mut panel = 0;
    while panel < right.count {
        panel += if S::WIDE && right.count - panel >= 2 {
            columns::<S, 2>(s, left, rows.clone(), right, panel, sink)
        } else {
            columns::<S, 1>(s, left, rows.clone(), right, panel, sink)
        };
    }
}

#[inline(always)]
fn columns<S: Simd, const P: usize>(
    s: S,
    left: Left<'_>,
    rows: Range<usize>,
    right: Right<'_>,
    panel: usize,
    sink: &mut impl Sink<S>,
) -> usize {
    let mut row = rows.start;
    while row < rows.end {
        row += match rows.end - row {
            12.. if S::WIDE => tile::<S, 12, P>(s, left, row, right, panel, sink),
            6.. => tile::<S, 6, P>(s, left, row, right, panel, sink),
            4.. => tile::<S, 4, P>(s, left, row, right, panel, sink),
            2.. => tile::<S, 2, P>(s, left, row, right, panel, sink),
            _ => tile::<S, 1, P>(s, left, row, right, panel, sink),
        };
    }
    P
}

/// `R` rows by `P` panels; returns `R`.
#[inline(always)]
fn tile<S: Simd, const R: usize, const P: usize>(
    s: S,
    left: Left<'_>,
    row: usize,
    right: Right<'_>,
    panel: usize,
    sink: &mut impl Sink<S>,
) -> usize {
    let x: [&[f32]; R] = std::array::from_fn(|r| left.row(row + r));
    let w: [&[Block]; P] = std::array::from_fn(|p| &right.panels[(panel + p) * right.stride..][..left.depth]);
    let mut sums = [[s.splat(0.0); P]; R];
    // Four steps a turn: counting and jumping beside each would cost a fifth of the time.
    let whole = if R >= 6 { left.depth / STEPS * STEPS } else { 0 };
    for i in (0..whole).step_by(STEPS) {
        for i in i..i + STEPS {
            // SAFETY: `i < depth`, the length of all of `x` and `w`.
            unsafe { step(s, &x, &w, i, &mut sums) };
        }
    }
    for i in whole..left.depth {
        // SAFETY: as above.
        unsafe { step(s, &x, &w, i, &mut sums) };
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (p, sum) in sums.into_iter().enumerate() {
            sink.put(s, row + r, panel + p, sum);
        }
    }
    R
}

/// Adds the products of column `i` of `x` with row `i` of `w`.
///
/// # Safety
/// `i` must be below the length of all of `x` and `w`. Checks here cost a tenth of the time.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const P: usize>(
    s: S,
    x: &[&[f32]; R],
    w: &[&[Block]; P],
    i: usize,
    sums: &mut [[S::F; P]; R],
) {
    for p in 0..P {
        // SAFETY: the caller's.
        let row = s.load(unsafe { w[p].get_unchecked(i) });
        for r in 0..R {
            // SAFETY: as above.
            let x = unsafe { *x[r].get_unchecked(i) };
            sums[r][p] = s.fma(row, s.splat(x), sums[r][p]);
        }
    }
}

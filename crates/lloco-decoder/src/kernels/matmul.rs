//! Products of matrices that change between two products, as they lie: nothing is packed beforehand.
//!
//! Made for the factors of adapters and their gradients. A stretch of sixteen columns is copied into the first-level
//! cache, and all rows of a task meet it there.

use super::cpu::{Isa, Kernel};
use super::cut::Cut;
use super::shared::Shared;
use super::simd::{Block, LANES, Simd};
use super::tile::{Left, Output, Right, STRETCH, TASK_BYTES, product};
use std::ops::Range;

/// Bytes of the output's rows of a task.
const OUTPUT_BYTES: usize = 256 * 1024;

/// What becomes of a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// It replaces the output.
    Store,
    /// It is added to the output.
    Add,
}

/// `scale * left right` into `out` `[rows, width]`: `left` `[rows, depth]`, `right` `[depth, width]`.
///
/// # Panics
/// If a length does not fit.
pub(crate) fn matmul(
    isa: Isa,
    left: &[f32],
    right: &[f32],
    scale: f32,
    out: &mut [f32],
    [rows, depth, width]: [usize; 3],
    how: Write,
) {
    let lengths = (left.len(), right.len(), out.len());
    assert_eq!(lengths, (rows * depth, depth * width, rows * width), "product of [{rows}, {depth}, {width}]");
    if out.is_empty() {
        return;
    }
    if depth == 0 {
        if how == Write::Store {
            out.fill(0.0);
        }
        return;
    }
    // A task's rows of both sides stay in the second-level cache while they meet panel after panel.
    let at_once = (TASK_BYTES / (4 * depth)).min(OUTPUT_BYTES / (4 * width)).clamp(1, 480);
    let cut = Cut::new([rows, depth, width], at_once, [12, 4]);
    let out = Shared::new(out);
    let task = |rows, panels| isa.run(Task { left, right, scale, out: &out, rows, panels, depth, width, how });
    cut.work(task).run();
}

/// `[rows, columns]` -> `[columns, rows]`.
pub(crate) fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrix.len()];
    transpose(matrix, rows, columns, &mut out);
    out
}

/// [`transposed`] into `out`.
pub(crate) fn transpose(matrix: &[f32], rows: usize, columns: usize, out: &mut [f32]) {
    let lengths = (matrix.len(), out.len());
    assert_eq!(lengths, (rows * columns, rows * columns), "matrix of shape [{rows}, {columns}]");
    // Squares, so that a cache line is read and written while it is at hand.
    for row in (0..rows).step_by(LANES) {
        for column in (0..columns).step_by(LANES) {
            for row in row..rows.min(row + LANES) {
                for column in column..columns.min(column + LANES) {
                    out[column * rows + row] = matrix[row * columns + column];
                }
            }
        }
    }
}

/// One thread's share.
struct Task<'a> {
    left: &'a [f32],
    right: &'a [f32],
    scale: f32,
    out: &'a Shared<'a, f32>,
    rows: Range<usize>,
    panels: Range<usize>,
    depth: usize,
    width: usize,
    how: Write,
}

impl Kernel for Task<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut wide: [Block; STRETCH] = [[0.0; LANES]; STRETCH];
        for panel in self.panels.clone() {
            let column = panel * LANES;
            for start in (0..self.depth).step_by(STRETCH) {
                let depth = STRETCH.min(self.depth - start);
                let rows = self.right[start * self.width..].chunks_exact(self.width);
                for (wide, row) in wide[..depth].iter_mut().zip(rows) {
                    s.store(wide, s.load_part(&row[column..self.width.min(column + LANES)]));
                }
                let left = Left { data: &self.left[start..], stride: self.depth, depth };
                let right = Right { panels: &wide, stride: STRETCH, count: 1 };
                let add = self.how == Write::Add || start > 0;
                let mut out = Output { out: self.out, width: self.width, panel, scale: self.scale, add };
                product(s, left, self.rows.clone(), right, &mut out);
            }
        }
    }
}

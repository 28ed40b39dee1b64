//! Work shared out row by row.

use rayon::prelude::*;

/// Numbers that make a task worth handing to another thread.
const GRAIN: usize = 32 * 1024;

/// Calls `work(first, rows)` for runs of rows `width` wide that together make up `out`, in parallel if it is large.
/// `first` is the index of the run's first row.
pub(crate) fn each_run(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() || width == 0 {
        return;
    }
    let rows = (GRAIN / width).max(1);
    if out.len() <= rows * width {
        return work(0, out);
    }
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, run)| work(i * rows, run));
}

/// As [`each_run`], over two outputs of the same shape.
pub(crate) fn each_run_of_two(
    a: &mut [f32],
    b: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    assert_eq!(a.len(), b.len());
    if a.is_empty() || width == 0 {
        return;
    }
    let rows = (GRAIN / width).max(1);
    if a.len() <= rows * width {
        return work(0, a, b);
    }
    let runs = a.par_chunks_mut(rows * width).zip(b.par_chunks_mut(rows * width));
    runs.enumerate().for_each(|(i, (a, b))| work(i * rows, a, b));
}

//! Work shared out piece by piece.

use super::crew;
use super::shared::Shared;

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
    each_piece(out, rows * width, |i, run| work(i * rows, run));
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
    each_piece_of_two(a, rows * width, b, rows * width, |i, a, b| work(i * rows, a, b));
}

/// Calls `work(i, piece)` for the pieces of `len` items, one at least, that make up `out`, the last perhaps a shorter one, in
/// parallel.
pub(crate) fn each_piece<T: Send>(out: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    each_piece_of_two(out, len, &mut [(); 0], 0, |i, piece, _| work(i, piece));
}

/// As [`each_piece`], with the pieces of a second output; where it has no more, the piece is empty, and what it has beyond
/// the first output's pieces is left as it is.
pub(crate) fn each_piece_of_two<A: Send, B: Send>(
    a: &mut [A],
    a_len: usize,
    b: &mut [B],
    b_len: usize,
    work: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let (a_all, b_all) = (a.len(), b.len());
    let (a, b) = (Shared::new(a), Shared::new(b));
    crew::each(a_all.div_ceil(a_len.max(1)), |i| {
        let (from, other) = (i * a_len, b_all.min(i * b_len));
        // SAFETY: the pieces of different numbers do not overlap.
        let (a, b) = unsafe { (a.piece(from, a_len.min(a_all - from)), b.piece(other, b_len.min(b_all - other))) };
        work(i, a, b);
    });
}

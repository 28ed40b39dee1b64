//! Rows of numbers as what tiles multiply, rounded to bf16, padded with zeros.

use super::super::simd::{LANES, PairUnit, Simd};
use super::super::tiles::{DEPTH, Step};
use super::Stored;
use half::bf16;

/// Rows as the columns of a right factor, `[row / 16, column / 2]` units of sixteen rows and two neighbouring columns:
/// `row(0)` to `row(len - 1)`, of up to `width` numbers, a multiple of 32. What is there of other rows stays.
#[inline(always)]
pub(super) fn columns<'r, S: Simd, T: Stored>(
    s: S,
    units: &mut [PairUnit],
    len: usize,
    width: usize,
    row: impl Fn(usize) -> &'r [T],
) {
    let mut rounded = vec![Step([bf16::ZERO; DEPTH]); width / DEPTH];
    for r in 0..len {
        round(s, row(r), &mut rounded);
        let numbers: &[[bf16; 2]] = bytemuck::cast_slice(&rounded);
        let panel = &mut units[r / LANES * (width / 2)..][..width / 2];
        for (unit, pair) in panel.iter_mut().zip(numbers) {
            unit.0[r % LANES] = *pair;
        }
    }
}

/// Rows as the rows of a right factor, `[column / 16, row / 2]` units of sixteen columns and two neighbouring rows, as many
/// panels as `width / 16`. What is there of other rows stays.
#[inline(always)]
pub(super) fn pairs<'r, S: Simd, T: Stored>(
    s: S,
    units: &mut [PairUnit],
    len: usize,
    width: usize,
    row: impl Fn(usize) -> &'r [T],
) {
    let height = units.len() / (width / LANES);
    for pair in 0..len.div_ceil(2) {
        let (even, odd) = (row(2 * pair), if 2 * pair + 1 < len { row(2 * pair + 1) } else { &[] });
        for (p, panel) in units.chunks_exact_mut(height).enumerate() {
            let at = p * LANES;
            s.store_unit(&mut panel[pair], part(s, even, at), part(s, odd, at));
        }
    }
}

/// A row as a row of a left factor.
#[inline(always)]
pub(super) fn round<S: Simd, T: Stored>(s: S, row: &[T], to: &mut [Step]) {
    for (i, step) in to.iter_mut().enumerate() {
        let (halves, _) = step.0.as_chunks_mut::<LANES>();
        s.store_bf16(&mut halves[0], part(s, row, i * DEPTH));
        s.store_bf16(&mut halves[1], part(s, row, i * DEPTH + LANES));
    }
}

/// Sixteen numbers of a row, the missing ones 0.
#[inline(always)]
fn part<S: Simd, T: Stored>(s: S, row: &[T], at: usize) -> S::F {
    let row = &row[at.min(row.len())..];
    match row.first_chunk() {
        Some(block) => T::load(s, block),
        None => {
            let mut block = [0.0; LANES];
            for (to, x) in block.iter_mut().zip(row) {
                *to = x.widen();
            }
            s.load(&block)
        }
    }
}

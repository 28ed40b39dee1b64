//! Products of a few rows with many keys and values, which are read as they lie, once for up to three rows.

use super::super::simd::{Block, LANES, Simd};
use super::{Stored, TILE};

/// Keys and values that are asked for before they are needed: a tile's.
pub(super) const AHEAD: usize = TILE;

/// The products of sixteen keys of four blocks with all queries, where that many registers are.
#[inline(always)]
pub(super) fn sixteen_dots<'k, S: Simd, T: Stored>(
    s: S,
    key: impl Fn(usize) -> &'k [[T; LANES]],
    queries: &[Block],
    scores: &mut [[Block; TILE / LANES]],
    tile: usize,
) {
    let (queries, _) = queries.as_chunks::<4>();
    let mut r = 0;
    while r < queries.len() {
        r += match queries.len() - r {
            3.. => dots_of_rows::<S, T, 3>(s, &key, &queries[r..], &mut scores[r..], tile),
            2 => dots_of_rows::<S, T, 2>(s, &key, &queries[r..], &mut scores[r..], tile),
            _ => dots_of_rows::<S, T, 1>(s, &key, &queries[r..], &mut scores[r..], tile),
        };
    }
}

/// The products of sixteen keys with the first `R` queries, each key widened once; returns `R`.
#[inline(always)]
fn dots_of_rows<'k, S: Simd, T: Stored, const R: usize>(
    s: S,
    key: impl Fn(usize) -> &'k [[T; LANES]],
    queries: &[[Block; 4]],
    scores: &mut [[Block; TILE / LANES]],
    tile: usize,
) -> usize {
    let mut query = [[s.splat(0.0); 4]; R];
    for r in 0..R {
        for b in 0..4 {
            query[r][b] = s.load(&queries[r][b]);
        }
    }
    let mut parts = [[[0.0; LANES]; LANES]; R];
    for j in 0..LANES {
        let key = key(j).first_chunk::<4>().expect("four blocks");
        s.fetch_outer(key, AHEAD);
        let mut wide = [s.splat(0.0); 4];
        for b in 0..4 {
            wide[b] = T::load(s, &key[b]);
        }
        for r in 0..R {
            let mut sum = s.mul(query[r][0], wide[0]);
            for b in 1..4 {
                sum = s.fma(query[r][b], wide[b], sum);
            }
            s.store(&mut parts[r][j], sum);
        }
    }
    for r in 0..R {
        let mut sums = [s.splat(0.0); LANES];
        for j in 0..LANES {
            sums[j] = s.load(&parts[r][j]);
        }
        s.store(&mut scores[r][tile], s.sum_each(&sums));
    }
    R
}

/// Adds `len` values, weighted by each row, to the rows' `sums`, which shrink first.
#[inline(always)]
pub(super) fn values_of_all<'v, S: Simd, T: Stored>(
    s: S,
    weights: &[[Block; TILE / LANES]],
    len: usize,
    row: impl Fn(usize) -> &'v [[T; LANES]] + Copy,
    shrinks: &[f32],
    sums: &mut [Block],
) {
    let (rows, blocks) = (weights.len(), row(0).len());
    let mut r = 0;
    while r < rows {
        let (weights, shrinks, sums) = (&weights[r..], &shrinks[r..], &mut sums[r * blocks..]);
        r += match rows - r {
            3.. => values_of_rows::<S, T, 3>(s, weights, len, row, shrinks, sums),
            2 => values_of_rows::<S, T, 2>(s, weights, len, row, shrinks, sums),
            _ => values_of_rows::<S, T, 1>(s, weights, len, row, shrinks, sums),
        };
    }
}

/// [`values_of_all`] of the first `R` rows, each value widened once; returns `R`.
#[inline(always)]
fn values_of_rows<'v, S: Simd, T: Stored, const R: usize>(
    s: S,
    weights: &[[Block; TILE / LANES]],
    len: usize,
    row: impl Fn(usize) -> &'v [[T; LANES]],
    shrinks: &[f32],
    sums: &mut [Block],
) -> usize {
    let blocks = row(0).len();
    for first in (0..blocks).step_by(4) {
        let mut acc = [[s.splat(0.0); 4]; R];
        for r in 0..R {
            for b in 0..4 {
                acc[r][b] = s.mul(s.load(&sums[r * blocks + first + b]), s.splat(shrinks[r]));
            }
        }
        for j in 0..len {
            let value = row(j)[first..].first_chunk::<4>().expect("blocks by four");
            s.fetch_outer(value, AHEAD);
            let mut wide = [s.splat(0.0); 4];
            for b in 0..4 {
                wide[b] = T::load(s, &value[b]);
            }
            for r in 0..R {
                let weight = s.splat(weights[r].as_flattened()[j]);
                for b in 0..4 {
                    acc[r][b] = s.fma(weight, wide[b], acc[r][b]);
                }
            }
        }
        for r in 0..R {
            for b in 0..4 {
                s.store(&mut sums[r * blocks + first + b], acc[r][b]);
            }
        }
    }
    R
}

/// The share of `B` blocks in the products of key `j` with all queries; the key is read once. Returns `B`.
#[inline(always)]
pub(super) fn dots<S: Simd, T: Stored, const B: usize>(
    s: S,
    key: &[[T; LANES]],
    queries: &[Block],
    scores: &mut [[Block; TILE / LANES]],
    j: usize,
    block: usize,
) -> usize {
    let mut wide = [s.splat(0.0); B];
    for b in 0..B {
        wide[b] = T::load(s, &key[block + b]);
    }
    for (query, scores) in queries.chunks_exact(key.len()).zip(scores) {
        let query = &query[block..block + B];
        let mut sum = s.mul(s.load(&query[0]), wide[0]);
        for b in 1..B {
            sum = s.fma(s.load(&query[b]), wide[b], sum);
        }
        let score = &mut scores[j / LANES][j % LANES];
        *score = if block == 0 { s.sum(sum) } else { *score + s.sum(sum) };
    }
    B
}

/// Adds the weighted values to all blocks of `sums`, which shrink first.
#[inline(always)]
pub(super) fn all_values<'v, S: Simd, T: Stored>(
    s: S,
    weights: &[f32],
    row: impl Fn(usize) -> &'v [[T; LANES]] + Copy,
    shrink: f32,
    sums: &mut [Block],
) {
    let (mut block, blocks) = (0, sums.len());
    while block < blocks {
        block += match blocks - block {
            4.. => values::<S, T, 4>(s, weights, row, shrink, sums, block),
            _ => values::<S, T, 1>(s, weights, row, shrink, sums, block),
        };
    }
}

/// `B` blocks of the weighted sum of values; returns `B`.
#[inline(always)]
fn values<'v, S: Simd, T: Stored, const B: usize>(
    s: S,
    weights: &[f32],
    row: impl Fn(usize) -> &'v [[T; LANES]],
    shrink: f32,
    sums: &mut [Block],
    block: usize,
) -> usize {
    let sums = &mut sums[block..block + B];
    let mut acc = [s.splat(0.0); B];
    for b in 0..B {
        acc[b] = s.mul(s.load(&sums[b]), s.splat(shrink));
    }
    for (j, weight) in weights.iter().enumerate() {
        let value = &row(j)[block..block + B];
        for b in 0..B {
            acc[b] = s.fma(s.splat(*weight), T::load(s, &value[b]), acc[b]);
        }
    }
    for (sum, acc) in sums.iter_mut().zip(acc) {
        s.store(sum, acc);
    }
    B
}

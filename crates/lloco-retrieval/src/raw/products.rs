//! Inner products of many rows with many queries.
//!
//! Three rows and four queries are multiplied at a time, so that a number that was loaded takes part in several products.
//! A block of rows stays in the first-level cache while the queries go by.

use super::dot::dot_f32;

/// Inner products of rows `[rows, dim]` with queries `[queries, dim]`, into `[queries, rows]`. `ahead` is what will be
/// read next: it is on its way from memory meanwhile.
pub(crate) fn products(rows: &[f32], queries: &[f32], dim: usize, ahead: &[u8], products: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: The processor has the features that the kernel was compiled for.
        return unsafe { x86::products(rows, queries, dim, ahead, products) };
    }
    portable(rows, queries, dim, products);
}

fn portable(rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32]) {
    let dim = dim.max(1);
    let height = (rows.len() / dim).max(1);
    for (query, products) in queries.chunks_exact(dim).zip(products.chunks_exact_mut(height)) {
        for (row, product) in rows.chunks_exact(dim).zip(products) {
            *product = dot_f32(row, query);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::dot_f32;
    use bytemuck::cast;
    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::*;
    use std::slice::Chunks;

    /// Rows and queries of one tile: 12 sums, 3 rows and a query in 16 registers.
    const ROWS: usize = 3;
    const QUERIES: usize = 4;

    /// Numbers of the rows that stay in the first-level cache: 18 KiB, which leaves room for four queries of 768.
    const BLOCK: usize = 4608;

    /// Bytes that come from memory together.
    const LINE: usize = 64;

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn products(rows: &[f32], queries: &[f32], dim: usize, ahead: &[u8], products: &mut [f32]) {
        let dim = dim.max(1);
        let height = rows.len() / dim;
        let tiles = height.div_ceil(ROWS) * (queries.len() / dim).div_ceil(QUERIES);
        let at_once = ahead.len().div_ceil(LINE).div_ceil(tiles.max(1));
        let mut ahead = ahead.chunks(LINE);
        let block = (BLOCK / dim / ROWS).max(1) * ROWS;
        for (b, rows) in rows.chunks(dim * block).enumerate() {
            for (q, queries) in queries.chunks(dim * QUERIES).enumerate() {
                let products = products.get_mut(q * QUERIES * height..).unwrap_or_default();
                for (r, rows) in rows.chunks(dim * ROWS).enumerate() {
                    fetch(&mut ahead, at_once);
                    let products = products.get_mut(b * block + r * ROWS..).unwrap_or_default();
                    if rows.len() == dim * ROWS && queries.len() == dim * QUERIES {
                        tile(rows, queries, dim, products, height);
                    } else {
                        part(rows, queries, dim, products, height);
                    }
                }
            }
        }
    }

    /// Begins to bring some lines from memory.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fetch(ahead: &mut Chunks<'_, u8>, lines: usize) {
        for line in ahead.by_ref().take(lines) {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }

    /// A tile that is not full.
    fn part(rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32], height: usize) {
        for (query, products) in queries.chunks_exact(dim).zip(products.chunks_mut(height.max(1))) {
            for (row, product) in rows.chunks_exact(dim).zip(products) {
                *product = dot_f32(row, query);
            }
        }
    }

    /// One full tile: `[ROWS, dim]` by `[QUERIES, dim]` into rows of `height` products.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn tile(rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32], height: usize) {
        let lines: [&[f32]; ROWS] = std::array::from_fn(|place| line(rows, place, dim));
        let asked: [&[f32]; QUERIES] = std::array::from_fn(|place| line(queries, place, dim));
        let [(a, _), (b, _), (c, _)] = lines.map(|line| line.as_chunks::<8>());
        let [(w, _), (x, _), (y, _), (z, _)] = asked.map(|line| line.as_chunks::<8>());
        let mut sums = [[_mm256_setzero_ps(); QUERIES]; ROWS];
        for ((((((a, b), c), w), x), y), z) in a.iter().zip(b).zip(c).zip(w).zip(x).zip(y).zip(z) {
            let rows: [__m256; ROWS] = [*a, *b, *c].map(cast);
            for (place, query) in [w, x, y, z].into_iter().enumerate() {
                let query = cast(*query);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    sums[place] = _mm256_fmadd_ps(row, query, sums[place]);
                }
            }
        }
        let whole = dim / 8 * 8;
        for (r, (sums, line)) in sums.into_iter().zip(lines).enumerate() {
            let sums: [f32; QUERIES] = cast(lanes(sums));
            for ((sum, query), products) in sums.into_iter().zip(asked).zip(products.chunks_mut(height.max(1))) {
                let rest = line.iter().zip(query).skip(whole).map(|(a, b)| a * b);
                if let Some(product) = products.get_mut(r) {
                    *product = sum + rest.sum::<f32>();
                }
            }
        }
    }

    /// The sum of each.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn lanes([a, b, c, d]: [__m256; QUERIES]) -> __m128 {
        let sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums))
    }

    /// Line `place` of a matrix.
    #[inline]
    fn line(all: &[f32], place: usize, dim: usize) -> &[f32] {
        all.get(place * dim..(place + 1) * dim).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::dot::tests::{exact, numbers};

    #[test]
    fn products_of_every_shape() {
        for dim in [1, 7, 8, 9, 31, 32, 33, 64, 100, 384, 2000] {
            for rows in [1, 2, 3, 4, 7, 14] {
                for queries in [1, 3, 4, 5, 9] {
                    let (a, b) = (numbers(rows * dim, 1.0), numbers(queries * dim, 2.0));
                    let (mut found, mut plain) = (vec![f32::NAN; rows * queries], vec![f32::NAN; rows * queries]);
                    products(&a, &b, dim, bytemuck::cast_slice(&a), &mut found);
                    portable(&a, &b, dim, &mut plain);
                    for (q, query) in b.chunks(dim).enumerate() {
                        for (r, row) in a.chunks(dim).enumerate() {
                            let wanted = exact(row, query);
                            for found in [found[q * rows + r], plain[q * rows + r]] {
                                assert!((found - wanted).abs() < 2e-4, "{dim} {rows} {queries}");
                            }
                        }
                    }
                }
            }
        }
    }
}

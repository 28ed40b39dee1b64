//! Inner products of stored rows with queries, with AVX2, FMA and F16C where the
//! processor has them.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Inner product of a half-precision row with a query.
pub(crate) fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: The processor has the features that the kernel was compiled for.
        return unsafe { x86::dot_f16(row, query) };
    }
    portable::dot(row.iter().map(|v| v.to_f32()), query)
}

/// Inner product of a single-precision row with a query.
pub(crate) fn dot_f32(row: &[f32], query: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: As in `dot_f16`.
        return unsafe { x86::dot_f32(row, query) };
    }
    portable::dot(row.iter().copied(), query)
}

/// Inner products of several rows with several queries, `[rows, dim]` by `[queries, dim]`
/// into `[queries, rows]`.
pub(crate) fn products(rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: As in `dot_f16`.
        return unsafe { x86::products(rows, queries, dim, products) };
    }
    let height = rows.len().checked_div(dim).unwrap_or(0).max(1);
    for (query, products) in queries.chunks_exact(dim.max(1)).zip(products.chunks_exact_mut(height)) {
        for (row, product) in rows.chunks_exact(dim.max(1)).zip(products) {
            *product = dot_f32(row, query);
        }
    }
}

/// Widens half-precision numbers.
pub(crate) fn widen(from: &[f16], to: &mut [f32]) {
    let length = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..length), to.get_mut(..length)) {
        from.convert_to_f32_slice(to);
    }
}

mod portable {
    /// Eight sums side by side, which compilers turn into vector instructions.
    pub(super) fn dot(row: impl Iterator<Item = f32>, query: &[f32]) -> f32 {
        let mut sums = [0.0; 8];
        for (place, (a, b)) in row.zip(query).enumerate() {
            if let Some(sum) = sums.get_mut(place % 8) {
                *sum += a * b;
            }
        }
        sums.iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use bytemuck::{cast, cast_ref};
    use half::f16;
    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::*;

    /// Rows and queries of one tile: 12 sums, 3 rows and a query in 16 registers.
    const ROWS: usize = 3;
    const QUERIES: usize = 4;

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
        let (row, row_rest) = row.as_chunks::<8>();
        let (query, query_rest) = query.as_chunks::<8>();
        let load = |v: &[f16; 8]| _mm256_cvtph_ps(cast(*v));
        let rest = row_rest.iter().map(|v| v.to_f32());
        sum(row, query, load) + super::portable::dot(rest, query_rest)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dot_f32(row: &[f32], query: &[f32]) -> f32 {
        let (row, row_rest) = row.as_chunks::<8>();
        let (query, query_rest) = query.as_chunks::<8>();
        let rest = row_rest.iter().copied();
        sum(row, query, |v: &[f32; 8]| cast(*v)) + super::portable::dot(rest, query_rest)
    }

    /// Four sums at once, as an addition waits for the one before on the same sum.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn sum<T>(row: &[T], query: &[[f32; 8]], load: impl Fn(&T) -> __m256) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 4];
        let (rows, row_rest) = row.as_chunks::<4>();
        let (queries, query_rest) = query.as_chunks::<4>();
        for (row, query) in rows.iter().zip(queries) {
            for ((row, query), sum) in row.iter().zip(query).zip(&mut sums) {
                *sum = _mm256_fmadd_ps(load(row), cast(*query), *sum);
            }
        }
        let [a, b, c, mut d] = sums;
        for (row, query) in row_rest.iter().zip(query_rest) {
            d = _mm256_fmadd_ps(load(row), cast(*query), d);
        }
        lanes(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn lanes(sum: __m256) -> f32 {
        let lanes: &[f32; 8] = cast_ref(&sum);
        lanes.iter().sum()
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn products(rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32]) {
        let dim = dim.max(1);
        let height = rows.len() / dim;
        for (n, tile) in queries.chunks(dim * QUERIES).enumerate() {
            let products = products.get_mut(n * QUERIES * height..).unwrap_or_default();
            for (m, rows) in rows.chunks(dim * ROWS).enumerate() {
                let full = rows.len() == dim * ROWS && tile.len() == dim * QUERIES;
                if let (true, Some(products)) = (full, products.get_mut(m * ROWS..)) {
                    tile_products(rows, tile, dim, products, height);
                    continue;
                }
                for (q, query) in tile.chunks_exact(dim).enumerate() {
                    for (r, row) in rows.chunks_exact(dim).enumerate() {
                        if let Some(product) = products.get_mut(q * height + m * ROWS + r) {
                            *product = dot_f32(row, query);
                        }
                    }
                }
            }
        }
    }

    /// One full tile: `[ROWS, dim]` by `[QUERIES, dim]` into rows of `height` products.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn tile_products(rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32], height: usize) {
        let split = |all, place| line(all, place, dim);
        let rows: [_; ROWS] = std::array::from_fn(|place| split(rows, place));
        let queries: [_; QUERIES] = std::array::from_fn(|place| split(queries, place));
        let mut sums = [[_mm256_setzero_ps(); ROWS]; QUERIES];
        let wide = rows.map(|(chunks, _)| chunks);
        let asked = queries.map(|(chunks, _)| chunks);
        for place in 0..dim / 8 {
            let row: [__m256; ROWS] = wide.map(|row| cast(row[place]));
            for (query, sums) in asked.iter().zip(&mut sums) {
                let query = cast(query[place]);
                for (sum, row) in sums.iter_mut().zip(row) {
                    *sum = _mm256_fmadd_ps(row, query, *sum);
                }
            }
        }
        for ((sums, (_, query)), products) in sums.into_iter().zip(queries).zip(products.chunks_mut(height.max(1))) {
            for ((sum, (_, row)), product) in sums.into_iter().zip(rows).zip(products) {
                let rest = super::portable::dot(row.iter().copied(), query);
                *product = lanes(sum) + rest;
            }
        }
    }

    type Chunks<'a> = (&'a [[f32; 8]], &'a [f32]);

    /// Line `place` of a matrix, in chunks of eight and a rest.
    #[inline]
    fn line(all: &[f32], place: usize, dim: usize) -> Chunks<'_> {
        let line = all.get(place * dim..(place + 1) * dim).unwrap_or_default();
        line.as_chunks::<8>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        let number = |n| (n as f32 * 0.731 + seed).sin();
        (0..count).map(number).collect()
    }

    fn exact(a: &[f32], b: &[f32]) -> f32 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(a * b));
        products.sum::<f64>() as f32
    }

    #[test]
    fn products_of_every_shape() {
        for dim in [1, 7, 8, 9, 31, 32, 33, 64, 100, 384] {
            for rows in [1, 2, 3, 4, 7] {
                for queries in [1, 3, 4, 5, 9] {
                    let (a, b) = (numbers(rows * dim, 1.0), numbers(queries * dim, 2.0));
                    let mut found = vec![f32::NAN; rows * queries];
                    products(&a, &b, dim, &mut found);
                    for (q, query) in b.chunks(dim).enumerate() {
                        for (r, row) in a.chunks(dim).enumerate() {
                            let (found, wanted) = (found[q * rows + r], exact(row, query));
                            assert!((found - wanted).abs() < 1e-4, "{dim} {rows} {queries}");
                            assert!((dot_f32(row, query) - wanted).abs() < 1e-4);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn half_precision_rows() {
        for dim in [1, 8, 9, 33, 384] {
            let row: Vec<f16> = numbers(dim, 3.0).into_iter().map(f16::from_f32).collect();
            let mut wide = vec![0.0; dim];
            widen(&row, &mut wide);
            let query = numbers(dim, 4.0);
            let wanted = exact(&wide, &query);
            assert!((dot_f16(&row, &query) - wanted).abs() < 1e-4);
            let portable = portable::dot(row.iter().map(|v| v.to_f32()), &query);
            assert!((portable - wanted).abs() < 1e-4);
        }
    }

    #[test]
    fn denormals_and_extremes_widen_exactly() {
        let all: Vec<f16> = (0..0x7c00).map(f16::from_bits).collect();
        for value in all {
            assert_eq!(dot_f16(&[value; 8], &[0.125; 8]), value.to_f32());
        }
    }
}

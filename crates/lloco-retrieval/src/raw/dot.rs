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
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers that look random.
    pub(crate) fn numbers(count: usize, seed: f32) -> Vec<f32> {
        let number = |n| (n as f32 * 0.731 + seed).sin();
        (0..count).map(number).collect()
    }

    /// The product, summed up in f64.
    pub(crate) fn exact(a: &[f32], b: &[f32]) -> f32 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(a * b));
        products.sum::<f64>() as f32
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

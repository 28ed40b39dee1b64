//! Inner products of rows of 8-bit numbers with a query, in whole numbers.

/// A query in 16-bit numbers, fine enough that its rounding is far below that of the rows.
pub(crate) struct Narrow {
    numbers: Vec<i16>,
    /// What a step stands for.
    step: f32,
}

impl Narrow {
    pub(crate) fn new(query: &[f32]) -> Self {
        // So that no sum of products with 8-bit numbers leaves 32 bits.
        let most = (i32::MAX as usize / (127 * query.len().max(1))).min(32_767) as f32;
        let largest = query.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let step = largest / most.max(1.0);
        let steps = if step > 0.0 { 1.0 / step } else { 0.0 };
        Self { numbers: query.iter().map(|value| (value * steps).round() as i16).collect(), step }
    }

    /// The inner product with a row, in steps of the row's scale.
    pub(crate) fn dot(&self, row: &[i8]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: The processor has the features that the kernel was compiled for.
            return self.step * unsafe { x86::dot(row, &self.numbers) } as f32;
        }
        self.step * portable(row, &self.numbers) as f32
    }
}

fn portable(row: &[i8], query: &[i16]) -> i32 {
    row.iter().zip(query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// Rows `[rows, dim]` as single precision, each times its scale.
pub(crate) fn widen_i8(rows: &[i8], scales: &[f32], dim: usize, to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: As in `dot`.
        return unsafe { x86::widen(rows, scales, dim, to) };
    }
    widen(rows, scales, dim, to);
}

#[inline(always)]
fn widen(rows: &[i8], scales: &[f32], dim: usize, to: &mut [f32]) {
    let dim = dim.max(1);
    for ((row, &scale), to) in rows.chunks_exact(dim).zip(scales).zip(to.chunks_exact_mut(dim)) {
        for (&number, to) in row.iter().zip(to) {
            *to = f32::from(number) * scale;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use bytemuck::{cast, cast_ref};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub(super) fn dot(row: &[i8], query: &[i16]) -> i32 {
        let (row, row_rest) = row.as_chunks::<16>();
        let (query, query_rest) = query.as_chunks::<16>();
        let mut sums = [_mm256_setzero_si256(); 4];
        let product =
            |row: &[i8; 16], query: &[i16; 16]| _mm256_madd_epi16(_mm256_cvtepi8_epi16(cast(*row)), cast(*query));
        let (rows, rows_rest) = row.as_chunks::<4>();
        let (queries, queries_rest) = query.as_chunks::<4>();
        for (row, query) in rows.iter().zip(queries) {
            for ((row, query), sum) in row.iter().zip(query).zip(&mut sums) {
                *sum = _mm256_add_epi32(*sum, product(row, query));
            }
        }
        let [a, b, c, mut d] = sums;
        for (row, query) in rows_rest.iter().zip(queries_rest) {
            d = _mm256_add_epi32(d, product(row, query));
        }
        let sum = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
        let lanes: &[i32; 8] = cast_ref(&sum);
        lanes.iter().sum::<i32>() + super::portable(row_rest, query_rest)
    }

    /// Plain code, which the compiler turns into vector instructions.
    #[target_feature(enable = "avx2")]
    pub(super) fn widen(rows: &[i8], scales: &[f32], dim: usize, to: &mut [f32]) {
        super::widen(rows, scales, dim, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_at_every_length() {
        for dim in [1, 7, 15, 16, 17, 63, 64, 65, 100, 384, 4096] {
            let row: Vec<i8> = (0..dim).map(|n| (n * 37 % 255) as u8 as i8).map(|n| n.max(-127)).collect();
            let query: Vec<f32> = (0..dim).map(|n| ((n * 91 + 5) as f32).sin()).collect();
            let narrow = Narrow::new(&query);
            let wanted: f64 = row.iter().zip(&query).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let size: f64 = row.iter().map(|&a| f64::from(a).abs()).sum();
            let found = f64::from(narrow.dot(&row));
            assert!((found - wanted).abs() < 2e-3 * size.max(1.0), "{dim}: {found} {wanted}");
            assert_eq!(narrow.dot(&row), narrow.step * portable(&row, &narrow.numbers) as f32);
        }
    }

    #[test]
    fn the_largest_sums_stay_whole() {
        for dim in [1, 384, 10_000] {
            let narrow = Narrow::new(&vec![3.0; dim]);
            let found = narrow.dot(&vec![-127; dim]);
            let wanted = -127.0 * 3.0 * dim as f32;
            assert!((found - wanted).abs() < 1e-3 * wanted.abs(), "{dim}: {found} {wanted}");
        }
        assert_eq!(Narrow::new(&[0.0; 20]).dot(&[5; 20]), 0.0);
    }

    #[test]
    fn rows_widen_exactly() {
        let rows: Vec<i8> = (-127..=127).collect();
        let mut wide = vec![0.0; 255];
        widen_i8(&rows, &[0.5; 15], 17, &mut wide);
        assert!(rows.iter().zip(&wide).all(|(&a, &b)| f32::from(a) * 0.5 == b));
    }
}

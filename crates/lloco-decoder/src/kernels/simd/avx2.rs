//! Sixteen lanes in two `ymm`: AVX2, FMA and F16C.

use super::{Block, LANES, PairUnit, Simd, pair, quad};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// A call of AVX2 intrinsics. SAFETY of all of them: `self` exists only where the CPU has AVX2, FMA and F16C, and memory
/// is reached through references to arrays of the full width, unaligned loads and stores.
macro_rules! avx2 {
    ($e:expr) => {
        // SAFETY: see the macro.
        unsafe { $e }
    };
}

/// AVX2, FMA and F16C: two `ymm`.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU must have AVX2, FMA and F16C.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }

    /// `bits` in all places, by the float broadcast: from memory it costs Zen no vector operation.
    #[inline(always)]
    fn splat_bits(self, bits: i32) -> [__m256i; 2] {
        avx2!([_mm256_castps_si256(_mm256_set1_ps(f32::from_bits(bits as u32))); 2])
    }
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        avx2!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load(self, from: &Block) -> Self::F {
        avx2!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))])
    }
    #[inline(always)]
    fn store(self, to: &mut Block, x: Self::F) {
        avx2!({
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
        })
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::F {
        avx2!({
            let widen = |p: *const bf16| {
                let half = _mm_loadu_si128(p.cast());
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
            };
            [widen(from.as_ptr()), widen(from.as_ptr().add(8))]
        })
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        avx2!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        avx2!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        avx2!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        avx2!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        avx2!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        avx2!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        avx2!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        avx2!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }
    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        avx2!({
            let pow = |n| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            [pow(n[0]), pow(n[1])]
        })
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        avx2!({
            let s = _mm256_add_ps(a[0], a[1]);
            let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
        })
    }
    #[inline(always)]
    fn max_lane(self, a: Self::F) -> f32 {
        avx2!({
            let s = _mm256_max_ps(a[0], a[1]);
            let s = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)))
        })
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::F {
        avx2!({
            let widen = |p: *const f16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
            [widen(from.as_ptr()), widen(from.as_ptr().add(8))]
        })
    }

    type I = [__m256i; 2];

    #[inline(always)]
    fn zero(self) -> Self::I {
        avx2!([_mm256_setzero_si256(); 2])
    }
    #[inline(always)]
    fn load_pairs(self, from: &[[i16; 2]; LANES]) -> Self::I {
        avx2!({
            let p: *const __m256i = from.as_ptr().cast();
            [_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))]
        })
    }
    #[inline(always)]
    fn store_pairs(self, to: &mut [[i16; 2]; LANES], x: Self::I) {
        avx2!({
            let p: *mut __m256i = to.as_mut_ptr().cast();
            _mm256_storeu_si256(p, x[0]);
            _mm256_storeu_si256(p.add(1), x[1]);
        })
    }
    #[inline(always)]
    fn splat_pair(self, x: [i16; 2]) -> Self::I {
        self.splat_bits(pair(x))
    }
    #[inline(always)]
    fn dot_pairs<const R: usize>(self, sum: Self::I, x: Self::I, y: Self::I) -> Self::I {
        avx2!([
            _mm256_add_epi32(sum[0], _mm256_madd_epi16(x[0], y[0])),
            _mm256_add_epi32(sum[1], _mm256_madd_epi16(x[1], y[1])),
        ])
    }
    #[inline(always)]
    fn to_int(self, x: Self::F) -> Self::I {
        avx2!([_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1])])
    }
    #[inline(always)]
    fn store_int(self, to: &mut [i32; LANES], x: Self::I) {
        avx2!({
            let p: *mut __m256i = to.as_mut_ptr().cast();
            _mm256_storeu_si256(p, x[0]);
            _mm256_storeu_si256(p.add(1), x[1]);
        })
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::F {
        avx2!([_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])])
    }
    #[inline(always)]
    fn widen_i8(self, from: &[[i8; 2]; LANES]) -> Self::I {
        avx2!({
            let p: *const __m128i = from.as_ptr().cast();
            [_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(1)))]
        })
    }
    #[inline(always)]
    fn load_quads(self, from: &[[u8; 4]; LANES]) -> Self::I {
        avx2!({
            let p: *const __m256i = from.as_ptr().cast();
            [_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))]
        })
    }
    #[inline(always)]
    fn store_quads(self, to: &mut [[u8; 4]; LANES], x: Self::I) {
        avx2!({
            let p: *mut __m256i = to.as_mut_ptr().cast();
            _mm256_storeu_si256(p, x[0]);
            _mm256_storeu_si256(p.add(1), x[1]);
        })
    }
    #[inline(always)]
    fn splat_quad(self, x: [i8; 4]) -> Self::I {
        self.splat_bits(quad(x))
    }
    #[inline(always)]
    fn nibbles(self, x: Self::I) -> [Self::I; 2] {
        avx2!({
            let mask = _mm256_set1_epi8(15);
            let high = |x| _mm256_and_si256(_mm256_srli_epi16::<4>(x), mask);
            [[_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask)], [high(x[0]), high(x[1])]]
        })
    }
    #[inline(always)]
    fn nibble_pairs(self, x: Self::I) -> [Self::I; 4] {
        avx2!({
            let mask = _mm256_set1_epi32(0x000f_000f);
            let low = |x: [__m256i; 2]| [_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask)];
            [
                low(x),
                low([_mm256_srli_epi32::<4>(x[0]), _mm256_srli_epi32::<4>(x[1])]),
                low([_mm256_srli_epi32::<8>(x[0]), _mm256_srli_epi32::<8>(x[1])]),
                low([_mm256_srli_epi32::<12>(x[0]), _mm256_srli_epi32::<12>(x[1])]),
            ]
        })
    }
    #[inline(always)]
    fn dot_quads<const R: usize>(self, sums: Self::I, x: Self::I, y: Self::I) -> Self::I {
        avx2!([
            _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(x[0], y[0])),
            _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(x[1], y[1])),
        ])
    }
    #[inline(always)]
    fn whole_quads<const R: usize>(self, x: Self::I) -> Self::I {
        avx2!({
            let one = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(x[0], one), _mm256_madd_epi16(x[1], one)]
        })
    }
    #[inline(always)]
    fn apart(self, x: Self::I) -> [Self::I; 2] {
        avx2!([x.map(|x| _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(x))), x.map(|x| _mm256_srai_epi32::<16>(x)),])
    }
    #[inline(always)]
    fn eighths(self, x: Self::I) -> [Self::I; 8] {
        avx2!({
            let low =
                |n| x.map(|x| _mm256_and_si256(_mm256_srlv_epi32(x, _mm256_set1_epi32(n)), _mm256_set1_epi32(15)));
            [low(0), low(4), low(8), low(12), low(16), low(20), low(24), low(28)]
        })
    }
    #[inline(always)]
    fn even(self, unit: &PairUnit) -> Self::F {
        avx2!({
            let p: *const __m256i = std::ptr::from_ref(unit).cast();
            let high = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v));
            [high(_mm256_load_si256(p)), high(_mm256_load_si256(p.add(1)))]
        })
    }
    #[inline(always)]
    fn odd(self, unit: &PairUnit) -> Self::F {
        avx2!({
            let p: *const f32 = std::ptr::from_ref(unit).cast();
            let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
            [_mm256_and_ps(mask, _mm256_load_ps(p)), _mm256_and_ps(mask, _mm256_load_ps(p.add(8)))]
        })
    }
    #[inline(always)]
    fn flush_exp(self, x: Self::F, y: Self::F) -> Self::F {
        avx2!({
            let flush = |x, y| {
                let low = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(-87.33655));
                let high = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_set1_ps(88.72284));
                _mm256_blendv_ps(_mm256_andnot_ps(low, y), _mm256_set1_ps(f32::INFINITY), high)
            };
            [flush(x[0], y[0]), flush(x[1], y[1])]
        })
    }
}

//! Sixteen lanes in one `zmm`: AVX-512 F, BW and DQ, and VNNI where there is that.

use super::{Block, LANES, PairUnit, Simd, pair, quad};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// Up to so many sums side by side would wait for VNNI's steps, which take five times as long as an addition.
const FEW: usize = 4;

/// AVX-512 F, BW and DQ: one `zmm`. With `VNNI`, that too: integers are multiplied and summed up in one instruction instead of
/// two.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool>(());

impl<const VNNI: bool> Avx512<VNNI> {
    /// # Safety
    /// The CPU must have AVX-512 F, BW and DQ, and VNNI if that is to be used.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// A call of AVX-512 intrinsics. SAFETY of all of them: `self` exists only where the CPU has AVX-512 F, BW and DQ, and VNNI
/// where that is asked for; memory is reached through references to arrays of the full width, unaligned loads and stores.
macro_rules! avx512 {
    ($e:expr) => {
        // SAFETY: see the macro.
        unsafe { $e }
    };
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type F = __m512;
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        avx512!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &Block) -> __m512 {
        avx512!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn store(self, to: &mut Block, x: __m512) {
        avx512!(_mm512_storeu_ps(to.as_mut_ptr(), x))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> __m512 {
        avx512!({
            let half = _mm256_loadu_si256(from.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        })
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        avx512!(_mm512_roundscale_ps::<NEAREST>(a))
    }
    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        avx512!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        avx512!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        avx512!(_mm512_reduce_max_ps(a))
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m512 {
        avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    type I = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        avx512!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn load_pairs(self, from: &[[i16; 2]; LANES]) -> __m512i {
        avx512!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn store_pairs(self, to: &mut [[i16; 2]; LANES], x: __m512i) {
        avx512!(_mm512_storeu_si512(to.as_mut_ptr().cast(), x))
    }
    #[inline(always)]
    fn splat_pair(self, x: [i16; 2]) -> __m512i {
        avx512!(_mm512_set1_epi32(pair(x)))
    }
    #[inline(always)]
    fn dot_pairs<const R: usize>(self, sum: __m512i, x: __m512i, y: __m512i) -> __m512i {
        avx512!(if VNNI && R > FEW {
            _mm512_dpwssd_epi32(sum, x, y)
        } else {
            _mm512_add_epi32(sum, _mm512_madd_epi16(x, y))
        })
    }
    #[inline(always)]
    fn to_int(self, x: __m512) -> __m512i {
        avx512!(_mm512_cvtps_epi32(x))
    }
    #[inline(always)]
    fn store_int(self, to: &mut [i32; LANES], x: __m512i) {
        avx512!(_mm512_storeu_si512(to.as_mut_ptr().cast(), x))
    }
    #[inline(always)]
    fn to_float(self, x: __m512i) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn widen_i8(self, from: &[[i8; 2]; LANES]) -> __m512i {
        avx512!(_mm512_cvtepi8_epi16(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_quads(self, from: &[[u8; 4]; LANES]) -> __m512i {
        avx512!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn store_quads(self, to: &mut [[u8; 4]; LANES], x: __m512i) {
        avx512!(_mm512_storeu_si512(to.as_mut_ptr().cast(), x))
    }
    #[inline(always)]
    fn splat_quad(self, x: [i8; 4]) -> __m512i {
        avx512!(_mm512_set1_epi32(quad(x)))
    }
    #[inline(always)]
    fn nibbles(self, x: __m512i) -> [__m512i; 2] {
        avx512!({
            let mask = _mm512_set1_epi8(15);
            [_mm512_and_si512(x, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask)]
        })
    }
    #[inline(always)]
    fn nibble_pairs(self, x: __m512i) -> [__m512i; 4] {
        avx512!({
            let low = |x| _mm512_and_si512(x, _mm512_set1_epi32(0x000f_000f));
            [low(x), low(_mm512_srli_epi32::<4>(x)), low(_mm512_srli_epi32::<8>(x)), low(_mm512_srli_epi32::<12>(x))]
        })
    }
    #[inline(always)]
    fn dot_quads<const R: usize>(self, sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        avx512!(if VNNI && R > FEW {
            _mm512_dpbusd_epi32(sums, x, y)
        } else {
            _mm512_add_epi16(sums, _mm512_maddubs_epi16(x, y))
        })
    }
    #[inline(always)]
    fn whole_quads<const R: usize>(self, sums: __m512i) -> __m512i {
        avx512!(if VNNI && R > FEW { sums } else { _mm512_madd_epi16(sums, _mm512_set1_epi16(1)) })
    }
    #[inline(always)]
    fn apart(self, x: __m512i) -> [__m512i; 2] {
        avx512!([_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(x)), _mm512_srai_epi32::<16>(x)])
    }
    #[inline(always)]
    fn eighths(self, x: __m512i) -> [__m512i; 8] {
        avx512!({
            let low = _mm512_set1_epi32(15);
            [
                _mm512_and_si512(x, low),
                _mm512_and_si512(_mm512_srli_epi32::<4>(x), low),
                _mm512_and_si512(_mm512_srli_epi32::<8>(x), low),
                _mm512_and_si512(_mm512_srli_epi32::<12>(x), low),
                _mm512_and_si512(_mm512_srli_epi32::<16>(x), low),
                _mm512_and_si512(_mm512_srli_epi32::<20>(x), low),
                _mm512_and_si512(_mm512_srli_epi32::<24>(x), low),
                _mm512_srli_epi32::<28>(x),
            ]
        })
    }
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16; LANES], x: __m512) {
        avx512!({
            let high = _mm512_srli_epi32::<16>(rounded(x));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(high));
        })
    }
    #[inline(always)]
    fn fetch<T>(self, item: &T, ahead: usize) {
        let place: *const i8 = std::ptr::from_ref(item).wrapping_add(ahead).cast();
        for line in (0..size_of::<T>()).step_by(64) {
            avx512!(_mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(line)));
        }
    }
    #[inline(always)]
    fn fetch_outer<T>(self, item: &T, ahead: usize) {
        let place: *const i8 = std::ptr::from_ref(item).wrapping_add(ahead).cast();
        for line in (0..size_of::<T>()).step_by(64) {
            avx512!(_mm_prefetch::<_MM_HINT_T1>(place.wrapping_add(line)));
        }
    }
    #[inline(always)]
    fn exp2_coarse(self, x: __m512) -> __m512 {
        // 2^f for f in 0.0..=1.0 by the cubic of least relative error; `scalef` rounds down as `reduce` does, and knows
        // what becomes of too small, too large and infinite numbers.
        const FLOOR: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
        avx512!({
            let f = _mm512_reduce_ps::<FLOOR>(x);
            let p = _mm512_set1_ps(7.802_452e-2);
            let p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.260_671_6e-1));
            let p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.958_335_5e-1));
            let p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.999_252e-1));
            _mm512_scalef_ps(p, x)
        })
    }
    #[inline(always)]
    fn any_above(self, x: __m512, limit: f32) -> bool {
        avx512!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_set1_ps(limit)) != 0)
    }
    #[inline(always)]
    fn silu_coarse(self, x: __m512) -> __m512 {
        let e = self.exp2_coarse(self.mul(x, self.splat(-std::f32::consts::LOG2_E)));
        // To 14 bits.
        avx512!(_mm512_mul_ps(x, _mm512_rcp14_ps(_mm512_add_ps(e, _mm512_set1_ps(1.0)))))
    }
    #[inline(always)]
    fn sum_each(self, all: &[__m512; LANES]) -> __m512 {
        // Pairs of registers become one whose lanes are halves of both: sixteen, eight, four, two, one.
        avx512!({
            let mut eight = [_mm512_setzero_ps(); 8];
            for i in 0..8 {
                let (a, b) = (all[2 * i], all[2 * i + 1]);
                eight[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            }
            let mut four = [_mm512_setzero_ps(); 4];
            for i in 0..4 {
                let (a, b) = (_mm512_castps_pd(eight[2 * i]), _mm512_castps_pd(eight[2 * i + 1]));
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                four[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            // Each quarter register now has four sums, of a quarter of the lanes.
            let mut two = [_mm512_setzero_ps(); 2];
            for i in 0..2 {
                let (a, b) = (four[2 * i], four[2 * i + 1]);
                two[i] = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            }
            let (a, b) = (two[0], two[1]);
            _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b))
        })
    }
    #[inline(always)]
    fn store_unit_positive(self, to: &mut PairUnit, even: __m512, odd: __m512) {
        avx512!({
            let half = _mm512_set1_epi32(0x8000);
            let even = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_castps_si512(even), half));
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let unit = _mm512_ternarylogic_epi32::<0xac>(mask, even, _mm512_add_epi32(_mm512_castps_si512(odd), half));
            _mm512_storeu_si512(std::ptr::from_mut(to).cast(), unit);
        })
    }
    #[inline(always)]
    fn store_unit(self, to: &mut PairUnit, even: __m512, odd: __m512) {
        avx512!({
            let even = _mm512_srli_epi32::<16>(rounded(even));
            // The bits of `odd` where the mask has ones, else those of `even`.
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let unit = _mm512_ternarylogic_epi32::<0xac>(mask, even, rounded(odd));
            _mm512_storeu_si512(std::ptr::from_mut(to).cast(), unit);
        })
    }
    #[inline(always)]
    fn even(self, unit: &PairUnit) -> __m512 {
        avx512!({
            let pairs = _mm512_load_si512(std::ptr::from_ref(unit).cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))
        })
    }
    #[inline(always)]
    fn odd(self, unit: &PairUnit) -> __m512 {
        avx512!({
            let pairs = _mm512_load_si512(std::ptr::from_ref(unit).cast());
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_and_si512(pairs, mask))
        })
    }
    #[inline(always)]
    fn flush_exp(self, x: __m512, y: __m512) -> __m512 {
        avx512!({
            let low = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_set1_ps(-87.33655));
            let high = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_set1_ps(88.72284));
            let y = _mm512_mask_mov_ps(y, low, _mm512_setzero_ps());
            _mm512_mask_mov_ps(y, high, _mm512_set1_ps(f32::INFINITY))
        })
    }
}

/// The bits of `x`, whose upper halves are `x` as bf16: to nearest, ties to even, NaN quiet.
#[inline(always)]
unsafe fn rounded(x: __m512) -> __m512i {
    // SAFETY: the caller's: the CPU has AVX-512 F.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let tie = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(bits, _mm512_add_epi32(tie, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x0040_0000))
    }
}

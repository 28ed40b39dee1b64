//! Sixteen f32 lanes, whatever the CPU offers: one `zmm`, two `ymm`, or an array.
//!
//! A value of a type that implements [`Simd`] is the proof that its instructions exist: [`super::cpu`] makes one only
//! after it has asked the CPU. So arithmetic here is safe, and every kernel is written once, generic over `S: Simd`.
//! Methods are `inline(always)` so that they end up inside the one function per instruction set that enables it
//! ([`super::cpu::Isa::run`]).

use half::bf16;

/// Lanes of one [`Simd::F`].
pub(crate) const LANES: usize = 16;

/// Sixteen f32 values in memory.
pub(crate) type Block = [f32; LANES];

/// Sixteen outputs times two neighbouring inputs in bf16: one unit of a packed weight panel.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct PairUnit(pub(crate) [[bf16; 2]; LANES]);

/// Arithmetic on sixteen f32 lanes. See the [module](self) for why it is safe.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32 lanes.
    type F: Copy;

    /// Whether one register holds all sixteen lanes, and there are 32 registers.
    const WIDE: bool;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, from: &Block) -> Self::F;
    fn store(self, to: &mut Block, x: Self::F);
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Lane-wise maximum; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integral `n` in `-126..=127`.
    fn exp2_int(self, n: Self::F) -> Self::F;
    fn sum(self, a: Self::F) -> f32;
    fn max_lane(self, a: Self::F) -> f32;
    /// A unit's first inputs of all sixteen outputs, widened.
    fn even(self, unit: &PairUnit) -> Self::F;
    /// A unit's second inputs of all sixteen outputs, widened.
    fn odd(self, unit: &PairUnit) -> Self::F;

    /// `e^x`, relative error below 2e-7; 0 below -87.3 (f32's smallest normal), infinity above 88.7; NaN stays NaN.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        // `max`/`min` return their second operand on NaN, so x goes second.
        let clamped = self.min(self.splat(88.72284), self.max(self.splat(-87.33655), x));
        let n = self.round(self.mul(clamped, self.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts: r stays exact.
        let r = self.fma(n, self.splat(-0.693_359_4), clamped);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_2e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = self.fma(p, r, self.splat(c));
        }
        let p = self.add(self.fma(self.mul(p, r), r, r), self.splat(1.0));
        // 2^n in two factors: n = 128 is still finite when p < 1.
        let half = self.round(self.mul(n, self.splat(0.5)));
        let y = self.mul(self.mul(p, self.exp2_int(half)), self.exp2_int(self.sub(n, half)));
        self.flush_exp(x, y)
    }

    /// 0 where `x` is below the range of [`Simd::exp`], else `y`.
    fn flush_exp(self, x: Self::F, y: Self::F) -> Self::F;

    /// Up to sixteen values, the missing ones 0.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F {
        match from.first_chunk() {
            Some(block) => self.load(block),
            None => {
                let mut block = [0.0; LANES];
                block[..from.len()].copy_from_slice(from);
                self.load(&block)
            }
        }
    }

    /// As many lanes as `to` takes, sixteen at most.
    #[inline(always)]
    fn store_part(self, to: &mut [f32], x: Self::F) {
        match to.first_chunk_mut() {
            Some(block) => self.store(block, x),
            None => {
                let mut block = [0.0; LANES];
                self.store(&mut block, x);
                let len = to.len();
                to.copy_from_slice(&block[..len]);
            }
        }
    }

    /// `x / (1 + e^-x)` and the logistic function of `x`.
    #[inline(always)]
    fn silu(self, x: Self::F) -> (Self::F, Self::F) {
        let one = self.splat(1.0);
        let e = self.exp(self.sub(self.splat(0.0), x));
        let sigmoid = self.div(one, self.add(one, e));
        (self.mul(x, sigmoid), sigmoid)
    }
}

/// Any CPU: arrays, left to the compiler's vectoriser.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

macro_rules! each {
    ($i:ident => $e:expr) => {
        std::array::from_fn(|$i| $e)
    };
}

impl Simd for Portable {
    type F = Block;
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Block {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &Block) -> Block {
        *from
    }
    #[inline(always)]
    fn store(self, to: &mut Block, x: Block) {
        *to = x;
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Block {
        each!(i => from[i].to_f32())
    }
    #[inline(always)]
    fn add(self, a: Block, b: Block) -> Block {
        each!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Block, b: Block) -> Block {
        each!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Block, b: Block) -> Block {
        each!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Block, b: Block) -> Block {
        each!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Block, b: Block, c: Block) -> Block {
        each!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Block, b: Block) -> Block {
        each!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Block, b: Block) -> Block {
        each!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: Block) -> Block {
        // Adding 1.5 * 2^23 leaves no room for a fraction; |a| < 2^22 in `exp`.
        each!(i => (a[i] + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn exp2_int(self, n: Block) -> Block {
        each!(i => f32::from_bits((((n[i] as i32) + 127) << 23) as u32))
    }
    #[inline(always)]
    fn sum(self, a: Block) -> f32 {
        a.iter().sum()
    }
    #[inline(always)]
    fn max_lane(self, a: Block) -> f32 {
        a.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }
    #[inline(always)]
    fn even(self, unit: &PairUnit) -> Block {
        each!(i => unit.0[i][0].to_f32())
    }
    #[inline(always)]
    fn odd(self, unit: &PairUnit) -> Block {
        each!(i => unit.0[i][1].to_f32())
    }
    #[inline(always)]
    fn flush_exp(self, x: Block, y: Block) -> Block {
        each!(i => if x[i] < -87.33655 { 0.0 } else if x[i] > 88.72284 { f32::INFINITY } else { y[i] })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Block, LANES, PairUnit, Simd};
    use half::bf16;
    use std::arch::x86_64::*;

    /// AVX2 and FMA: two `ymm`.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The CPU must have AVX2 and FMA.
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    /// A call of AVX2 intrinsics. SAFETY of all of them: `self` exists only where the CPU has AVX2 and FMA, and memory
    /// is reached through references to arrays of the full width, unaligned loads and stores.
    macro_rules! avx2 {
        ($e:expr) => {
            // SAFETY: see the macro.
            unsafe { $e }
        };
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

    /// AVX-512 F and BW: one `zmm`.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        /// # Safety
        /// The CPU must have AVX-512 F and BW.
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    /// A call of AVX-512 intrinsics. SAFETY of all of them: `self` exists only where the CPU has AVX-512 F and BW, and
    /// memory is reached through references to arrays of the full width, unaligned loads and stores.
    macro_rules! avx512 {
        ($e:expr) => {
            // SAFETY: see the macro.
            unsafe { $e }
        };
    }

    impl Simd for Avx512 {
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
}

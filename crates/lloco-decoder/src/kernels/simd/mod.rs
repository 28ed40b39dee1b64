//! Sixteen f32 lanes, whatever the CPU offers: one `zmm`, two `ymm`, or an array.
//!
//! A value of a type that implements [`Simd`] is the proof that its instructions exist: [`super::cpu`] makes one only
//! after it has asked the CPU. So arithmetic here is safe, and every kernel is written once, generic over `S: Simd`.
//! Methods are `inline(always)` so that they end up inside the one function per instruction set that enables it
//! ([`super::cpu::Isa::run`]).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use self::{avx2::Avx2, avx512::Avx512};
pub(crate) use portable::Portable;

use half::{bf16, f16};

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
    fn load_f16(self, from: &[f16; LANES]) -> Self::F;

    /// Sixteen pairs of i16, or sixteen i32.
    type I: Copy;

    fn zero(self) -> Self::I;
    fn load_pairs(self, from: &[[i16; 2]; LANES]) -> Self::I;
    fn store_pairs(self, to: &mut [[i16; 2]; LANES], x: Self::I);
    /// The same pair in all sixteen places.
    fn splat_pair(self, x: [i16; 2]) -> Self::I;
    /// `sum + x[0] * y[0] + x[1] * y[1]` in each place: from pairs to i32, wrapping. `R` such sums grow side by side.
    fn dot_pairs<const R: usize>(self, sum: Self::I, x: Self::I, y: Self::I) -> Self::I;
    /// The nearest i32, ties to even; any at all for NaN and what is too large.
    fn to_int(self, x: Self::F) -> Self::I;
    fn store_int(self, to: &mut [i32; LANES], x: Self::I);
    /// Sixteen i32 as f32.
    fn to_float(self, x: Self::I) -> Self::F;
    /// Pairs of i8, widened.
    fn widen_i8(self, from: &[[i8; 2]; LANES]) -> Self::I;
    /// Sixteen times four bytes.
    fn load_quads(self, from: &[[u8; 4]; LANES]) -> Self::I;
    fn store_quads(self, to: &mut [[u8; 4]; LANES], x: Self::I);
    /// The same four bytes in all sixteen places.
    fn splat_quad(self, x: [i8; 4]) -> Self::I;
    /// The low halves of all bytes, and the high halves.
    fn nibbles(self, x: Self::I) -> [Self::I; 2];
    /// The halves of all bytes as pairs of i16: the low halves of bytes 0 and 2, their high halves, and the same of bytes 1
    /// and 3.
    fn nibble_pairs(self, x: Self::I) -> [Self::I; 4];
    /// Adds to the sums of each place the products of four u8 and four i8. A place may hold two sums, of i16. `R` such places
    /// grow side by side.
    fn dot_quads<const R: usize>(self, sums: Self::I, x: Self::I, y: Self::I) -> Self::I;
    /// What [`Simd::dot_quads`] with this `R` has summed up since [`Simd::zero`], as one i32 in each place.
    fn whole_quads<const R: usize>(self, sums: Self::I) -> Self::I;
    /// The first i16 of each place, and the second, as i32.
    fn apart(self, x: Self::I) -> [Self::I; 2];
    /// The eight halves of bytes of each place, the lowest first, as i32.
    fn eighths(self, x: Self::I) -> [Self::I; 8];

    /// Rounds to bf16, to nearest, ties to even; NaN stays NaN.
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16; LANES], x: Self::F) {
        let mut block = [0.0; LANES];
        self.store(&mut block, x);
        *to = block.map(bf16::from_f32);
    }

    /// A unit of two inputs, rounded as by [`Simd::store_bf16`].
    #[inline(always)]
    fn store_unit(self, to: &mut PairUnit, even: Self::F, odd: Self::F) {
        let mut halves = [[bf16::ZERO; LANES]; 2];
        self.store_bf16(&mut halves[0], even);
        self.store_bf16(&mut halves[1], odd);
        to.0 = std::array::from_fn(|lane| [halves[0][lane], halves[1][lane]]);
    }

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

    /// Whether any lane is above `limit`; a NaN is not.
    #[inline(always)]
    fn any_above(self, x: Self::F, limit: f32) -> bool {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, x);
        lanes.iter().any(|x| *x > limit)
    }

    /// Asks for the cache lines of the item `ahead` places behind `item`, which need not exist.
    #[inline(always)]
    fn fetch<T>(self, item: &T, ahead: usize) {
        let _ = (item, ahead);
    }

    /// As [`fetch`](Self::fetch), into the second-level cache: more lines may be on their way there than to the first.
    #[inline(always)]
    fn fetch_outer<T>(self, item: &T, ahead: usize) {
        let _ = (item, ahead);
    }

    /// `2^x` for what is rounded to bf16 afterwards: relative error below 1e-4, 0 far below -126, NaN stays NaN.
    #[inline(always)]
    fn exp2_coarse(self, x: Self::F) -> Self::F {
        self.exp(self.mul(x, self.splat(std::f32::consts::LN_2)))
    }

    /// `x / (1 + e^-x)` for what is rounded to bf16 afterwards: relative error below 2e-4.
    #[inline(always)]
    fn silu_coarse(self, x: Self::F) -> Self::F {
        self.silu(x).0
    }

    /// The sums of sixteen times sixteen lanes.
    #[inline(always)]
    fn sum_each(self, all: &[Self::F; LANES]) -> Self::F {
        let mut sums = [0.0; LANES];
        for (sum, x) in sums.iter_mut().zip(all) {
            *sum = self.sum(*x);
        }
        self.load(&sums)
    }

    /// As [`Simd::store_unit`], of positive numbers, ties up; what a NaN becomes is open.
    #[inline(always)]
    fn store_unit_positive(self, to: &mut PairUnit, even: Self::F, odd: Self::F) {
        self.store_unit(to, even, odd);
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

/// Two i16 in the places that memory has them in.
#[inline(always)]
fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

/// Four i8 in the places that memory has them in.
#[inline(always)]
fn quad(x: [i8; 4]) -> i32 {
    i32::from_le_bytes(x.map(|x| x as u8))
}

//! Any CPU: arrays, left to the compiler's vectoriser.

use super::{Block, LANES, PairUnit, Simd, pair, quad};
use half::{bf16, f16};

/// Sixteen lanes in arrays.
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
    fn load_f16(self, from: &[f16; LANES]) -> Block {
        each!(i => from[i].to_f32())
    }

    type I = [i32; LANES];

    #[inline(always)]
    fn zero(self) -> Self::I {
        [0; LANES]
    }
    #[inline(always)]
    fn load_pairs(self, from: &[[i16; 2]; LANES]) -> Self::I {
        each!(i => pair(from[i]))
    }
    #[inline(always)]
    fn store_pairs(self, to: &mut [[i16; 2]; LANES], x: Self::I) {
        *to = each!(i => [x[i] as i16, (x[i] >> 16) as i16]);
    }
    #[inline(always)]
    fn splat_pair(self, x: [i16; 2]) -> Self::I {
        [pair(x); LANES]
    }
    #[inline(always)]
    fn dot_pairs<const R: usize>(self, sum: Self::I, x: Self::I, y: Self::I) -> Self::I {
        let low = |x: i32| i32::from(x as i16);
        each!(i => sum[i].wrapping_add(low(x[i]) * low(y[i])).wrapping_add((x[i] >> 16) * (y[i] >> 16)))
    }
    #[inline(always)]
    fn to_int(self, x: Block) -> Self::I {
        each!(i => ((x[i] + 12_582_912.0) - 12_582_912.0) as i32)
    }
    #[inline(always)]
    fn store_int(self, to: &mut [i32; LANES], x: Self::I) {
        *to = x;
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Block {
        each!(i => x[i] as f32)
    }
    #[inline(always)]
    fn widen_i8(self, from: &[[i8; 2]; LANES]) -> Self::I {
        each!(i => pair(from[i].map(i16::from)))
    }
    #[inline(always)]
    fn load_quads(self, from: &[[u8; 4]; LANES]) -> Self::I {
        each!(i => i32::from_le_bytes(from[i]))
    }
    #[inline(always)]
    fn store_quads(self, to: &mut [[u8; 4]; LANES], x: Self::I) {
        *to = each!(i => x[i].to_le_bytes());
    }
    #[inline(always)]
    fn splat_quad(self, x: [i8; 4]) -> Self::I {
        [quad(x); LANES]
    }
    #[inline(always)]
    fn nibbles(self, x: Self::I) -> [Self::I; 2] {
        [each!(i => x[i] & 0x0f0f_0f0f), each!(i => x[i] >> 4 & 0x0f0f_0f0f)]
    }
    #[inline(always)]
    fn nibble_pairs(self, x: Self::I) -> [Self::I; 4] {
        [0, 4, 8, 12].map(|by| each!(i => x[i] >> by & 0x000f_000f))
    }
    #[inline(always)]
    fn dot_quads<const R: usize>(self, sums: Self::I, x: Self::I, y: Self::I) -> Self::I {
        each!(i => {
            let (x, y) = (x[i].to_le_bytes().map(i16::from), y[i].to_le_bytes().map(|y| i16::from(y as i8)));
            let (low, high) = (x[0] * y[0] + x[1] * y[1], x[2] * y[2] + x[3] * y[3]);
            pair([(sums[i] as i16).wrapping_add(low), ((sums[i] >> 16) as i16).wrapping_add(high)])
        })
    }
    #[inline(always)]
    fn whole_quads<const R: usize>(self, x: Self::I) -> Self::I {
        each!(i => i32::from(x[i] as i16) + (x[i] >> 16))
    }
    #[inline(always)]
    fn apart(self, x: Self::I) -> [Self::I; 2] {
        [each!(i => i32::from(x[i] as i16)), each!(i => x[i] >> 16)]
    }
    #[inline(always)]
    fn eighths(self, x: Self::I) -> [Self::I; 8] {
        std::array::from_fn(|n| each!(i => x[i] >> (4 * n) & 15))
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

//! Eight bits a weight, `scale * number`.

use super::{BLOCK, Block32, PAIRS, Parts, Stored, dot_pairs, fill, fill_runs};
use crate::gguf::{BlockType, q5_0_numbers};
use crate::kernels::pages::Pages;
use crate::kernels::simd::{LANES, PairUnit, Simd};
use half::f16;

/// Eight bits a weight, as in `Q8_0`. Inputs are 16-bit integers: next to nothing of x is lost.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Bytes {
    scale: [f16; LANES],
    numbers: [[[i8; 2]; LANES]; PAIRS],
}

/// [`Bytes`] with numbers of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct WideBytes {
    scale: [f32; LANES],
    numbers: [[[i16; 2]; LANES]; PAIRS],
}

impl Block32 for Bytes {
    type Wide = WideBytes;
    type Unit = [i16; 2];
    const UNITS: usize = PAIRS;
    const STEPS: f32 = 32767.0;

    fn blank() -> WideBytes {
        WideBytes { scale: [0.0; LANES], numbers: [[[0; 2]; LANES]; PAIRS] }
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, to: &mut WideBytes) {
        s.store(&mut to.scale, s.load_f16(&self.scale));
        for (to, numbers) in to.numbers.iter_mut().zip(&self.numbers) {
            s.store_pairs(to, s.widen_i8(numbers));
        }
    }
    #[inline(always)]
    fn units(numbers: &[i32; BLOCK]) -> impl Iterator<Item = [i16; 2]> {
        numbers.as_chunks().0.iter().map(|pair: &[i32; 2]| pair.map(|x| x as i16))
    }
    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(
        wide: &WideBytes,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    ) {
        let dots = dot_pairs(s, &wide.numbers, x);
        let scale = s.load(&wide.scale);
        for r in 0..R {
            sums[r] = s.fma(s.mul(s.to_float(dots[r]), scale), s.splat(parts[0][r]), sums[r]);
        }
    }
    #[inline(always)]
    fn multiply_once<S: Simd, const R: usize>(
        &self,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    ) {
        let x = &x[..PAIRS];
        let mut dots = [s.zero(); R];
        for i in 0..PAIRS {
            let w = s.widen_i8(&self.numbers[i]);
            for r in 0..R {
                dots[r] = s.dot_pairs::<R>(dots[r], w, s.splat_pair(x[i][r]));
            }
        }
        let scale = s.load_f16(&self.scale);
        for r in 0..R {
            sums[r] = s.fma(s.mul(s.to_float(dots[r]), scale), s.splat(parts[0][r]), sums[r]);
        }
    }
}

impl Bytes {
    /// Stores 32 numbers of one output; `false` if their scale is not finite.
    fn set(&mut self, output: usize, scale: f16, numbers: impl IntoIterator<Item = i8>) -> bool {
        self.scale[output] = scale;
        for (k, number) in numbers.into_iter().take(BLOCK).enumerate() {
            self.numbers[k / 2][output][k % 2] = number;
        }
        scale.is_finite()
    }
}

impl Stored for Bytes {
    fn quantise(&mut self, output: usize, weights: &[f32; BLOCK]) -> bool {
        let largest = weights.iter().fold(0.0, |m: f32, w| m.max(w.abs()));
        let scale = f16::from_f32(largest / 127.0);
        // Rounded down, one of the smallest numbers of f16 would leave the largest weight out of reach.
        let beyond = largest > 127.5 * scale.to_f32();
        let scale = if beyond { f16::from_bits(scale.to_bits() + 1) } else { scale };
        let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
        let numbers = weights.map(|w| (w * inverse).round().clamp(-127.0, 127.0) as i8);
        self.set(output, scale, numbers) && weights.iter().all(|w| w.is_finite())
    }
    fn get(&self, output: usize, input: usize) -> f32 {
        self.scale[output].to_f32() * f32::from(self.numbers[input / 2][output][input % 2])
    }
    #[inline(always)]
    fn unpack<S: Simd>(&self, s: S, to: &mut [PairUnit; PAIRS]) {
        let scale = s.load_f16(&self.scale);
        for (to, numbers) in to.iter_mut().zip(&self.numbers) {
            let [even, odd] = s.apart(s.widen_i8(numbers));
            s.store_unit(to, s.mul(s.to_float(even), scale), s.mul(s.to_float(odd), scale));
        }
    }
}

/// Rows of GGUF's `Q8_0` blocks: scale, 32 signed bytes. `cols` is a multiple of 32. `None` if a scale is not finite.
pub(crate) fn from_q8_0(rows: usize, cols: usize, bytes: &[u8]) -> Option<Pages<Bytes>> {
    let (all, _) = bytes.as_chunks::<34>();
    fill(rows, cols, |block: &mut Bytes, output, row, start| {
        let [low, high, numbers @ ..] = &all[(row * cols + start) / BLOCK];
        block.set(output, f16::from_le_bytes([*low, *high]), numbers.map(|byte| byte as i8))
    })
}

/// The same of `Q5_0` blocks, whose numbers are of five bits.
pub(crate) fn from_q5_0(rows: usize, cols: usize, bytes: &[u8]) -> Option<Pages<Bytes>> {
    let (all, _) = bytes.as_chunks::<22>();
    fill(rows, cols, |block: &mut Bytes, output, row, start| {
        let from = &all[(row * cols + start) / BLOCK];
        block.set(output, f16::from_le_bytes([from[0], from[1]]), q5_0_numbers(from))
    })
}

/// Rows of any GGUF blocks of up to 256 values, quantised anew. `cols` is a multiple of a block's values. `None` if a weight
/// is not finite, or too large for a scale.
pub(crate) fn requantised(rows: usize, cols: usize, kind: BlockType, bytes: &[u8]) -> Option<Pages<Bytes>> {
    let (len, size) = (kind.block_values(), kind.block_bytes());
    fill_runs(rows, cols, len / BLOCK, |blocks: &mut [Bytes], output, row, start| {
        let mut weights = [0.0; 256];
        kind.dequantize(&bytes[(row * cols + start) / len * size..][..size], &mut weights[..len]);
        let mut places = blocks.iter_mut().zip(weights.as_chunks().0);
        places.all(|(block, weights)| block.quantise(output, weights))
    })
}

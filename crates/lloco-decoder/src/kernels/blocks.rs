//! Weights in blocks of 32 inputs with a scale each: eight bits (8.5 with the scale), or four (5 with scale and minimum).
//!
//! The numbers are those of GGUF's `Q8_0`, `Q4_0` and `Q4_1`, bit for bit; only their order is a panel's.

use super::simd::{LANES, Simd};
use bytemuck::Zeroable;
use half::f16;
use rayon::prelude::*;

/// Inputs of one block.
pub(crate) const BLOCK: usize = 32;

/// Pairs of inputs of one block.
const PAIRS: usize = BLOCK / 2;

/// Fours of inputs of one block.
const QUADS: usize = BLOCK / 4;

/// Of one block of `R` rows of x: scales, and sums of the f32 numbers.
pub(crate) type Parts<'a, const R: usize> = [&'a [f32; R]; 2];

/// A block of sixteen outputs, as it is stored.
pub(crate) trait Stored: Copy + Send + Sync + Zeroable + 'static {
    /// Stores 32 weights of one output as well as possible; `false` if one is not finite or beyond an f16 scale.
    #[must_use]
    fn quantise(&mut self, output: usize, weights: &[f32; BLOCK]) -> bool;
    /// Reads one weight.
    fn get(&self, output: usize, input: usize) -> f32;
}

/// A block of sixteen outputs, as it is multiplied.
pub(crate) trait Block32: Copy + Send + Sync + 'static {
    /// The block with its numbers apart, ready to multiply.
    type Wide: Copy;
    /// Neighbouring inputs of x, as integers that suit the weights: two or four.
    type Unit: Copy + Send + Sync + Zeroable;
    /// Units of a block.
    const UNITS: usize;
    /// The largest such integer.
    const STEPS: f32;

    /// An empty wide block.
    fn blank() -> Self::Wide;
    /// Fills a wide block.
    fn widen<S: Simd>(&self, s: S, to: &mut Self::Wide);
    /// The units of 32 numbers within `-STEPS..=STEPS`; any others are cut off, and their scale is NaN.
    fn units(numbers: &[i32; BLOCK]) -> impl Iterator<Item = Self::Unit>;
    /// `sums[r] += ` the product of the block with `x[..][r]`, row r's units, whose scales and sums are `parts`.
    fn multiply<S: Simd, const R: usize>(
        wide: &Self::Wide,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    );
    /// As [`Block32::multiply`], straight from memory.
    fn multiply_once<S: Simd, const R: usize>(
        &self,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    );
}

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

/// Four bits a weight, as in `Q4_1`: `scale * number + minimum`. Four inputs `i` in the low halves of `numbers[i]`, four
/// inputs `i + 4` in the high halves. Inputs are 8-bit integers, whose products with fifteen at most add up in 16 bits
/// over a whole block: 8 * 2 * 15 * 127 < 2^15. The fastest, but those inputs are coarse.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Nibbles {
    scale: [f16; LANES],
    minimum: [f16; LANES],
    numbers: [[[u8; 4]; LANES]; QUADS / 2],
}

/// [`Nibbles`] with numbers of eight bits.
#[derive(Clone, Copy)]
pub(crate) struct WideNibbles {
    scale: [f32; LANES],
    minimum: [f32; LANES],
    numbers: [[[u8; 4]; LANES]; QUADS],
}

/// [`Nibbles`] that meet inputs of 16 bits, as [`Bytes`] do: next to nothing of x is lost. A pair is two inputs that lie
/// two apart, as masks take them out of four bytes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct FineNibbles(Nibbles);

impl FineNibbles {
    /// The same blocks.
    pub(crate) fn of(blocks: &[Nibbles]) -> &[Self] {
        bytemuck::cast_slice(blocks)
    }
}

/// [`FineNibbles`] with numbers of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct WideFineNibbles {
    scale: [f32; LANES],
    minimum: [f32; LANES],
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
                dots[r] = s.dot_pairs(dots[r], w, s.splat_pair(x[i][r]));
            }
        }
        let scale = s.load_f16(&self.scale);
        for r in 0..R {
            sums[r] = s.fma(s.mul(s.to_float(dots[r]), scale), s.splat(parts[0][r]), sums[r]);
        }
    }
}

impl Stored for Bytes {
    fn quantise(&mut self, output: usize, weights: &[f32; BLOCK]) -> bool {
        let largest = weights.iter().fold(0.0, |m: f32, w| m.max(w.abs()));
        let scale = f16::from_f32(largest / 127.0);
        self.scale[output] = scale;
        let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
        for (k, w) in weights.iter().enumerate() {
            self.numbers[k / 2][output][k % 2] = (w * inverse).round().clamp(-127.0, 127.0) as i8;
        }
        scale.is_finite() && weights.iter().all(|w| w.is_finite())
    }
    fn get(&self, output: usize, input: usize) -> f32 {
        self.scale[output].to_f32() * f32::from(self.numbers[input / 2][output][input % 2])
    }
}

impl Block32 for Nibbles {
    type Wide = WideNibbles;
    type Unit = [i8; 4];
    const UNITS: usize = QUADS;
    const STEPS: f32 = 127.0;

    fn blank() -> WideNibbles {
        WideNibbles { scale: [0.0; LANES], minimum: [0.0; LANES], numbers: [[[0; 4]; LANES]; QUADS] }
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, to: &mut WideNibbles) {
        s.store(&mut to.scale, s.load_f16(&self.scale));
        s.store(&mut to.minimum, s.load_f16(&self.minimum));
        for i in 0..QUADS / 2 {
            let [low, high] = s.nibbles(s.load_quads(&self.numbers[i]));
            s.store_quads(&mut to.numbers[i], low);
            s.store_quads(&mut to.numbers[i + QUADS / 2], high);
        }
    }
    #[inline(always)]
    fn units(numbers: &[i32; BLOCK]) -> impl Iterator<Item = [i8; 4]> {
        numbers.as_chunks().0.iter().map(|quad: &[i32; 4]| quad.map(|x| x as i8))
    }
    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(
        wide: &WideNibbles,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    ) {
        let x = &x[..QUADS];
        let mut dots = [s.zero(); R];
        for i in 0..QUADS {
            let w = s.load_quads(&wide.numbers[i]);
            for r in 0..R {
                dots[r] = s.dot_quads(dots[r], w, s.splat_quad(x[i][r]));
            }
        }
        let (scale, minimum) = (s.load(&wide.scale), s.load(&wide.minimum));
        for r in 0..R {
            let dot = s.mul(s.to_float(s.add_pairs(dots[r])), scale);
            sums[r] = s.fma(dot, s.splat(parts[0][r]), sums[r]);
            sums[r] = s.fma(minimum, s.splat(parts[1][r]), sums[r]);
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
        let x = &x[..QUADS];
        let mut dots = [s.zero(); R];
        for i in 0..QUADS / 2 {
            let [low, high] = s.nibbles(s.load_quads(&self.numbers[i]));
            for r in 0..R {
                dots[r] = s.dot_quads(dots[r], low, s.splat_quad(x[i][r]));
                dots[r] = s.dot_quads(dots[r], high, s.splat_quad(x[i + QUADS / 2][r]));
            }
        }
        let (scale, minimum) = (s.load_f16(&self.scale), s.load_f16(&self.minimum));
        for r in 0..R {
            let dot = s.mul(s.to_float(s.add_pairs(dots[r])), scale);
            sums[r] = s.fma(dot, s.splat(parts[0][r]), sums[r]);
            sums[r] = s.fma(minimum, s.splat(parts[1][r]), sums[r]);
        }
    }
}

impl Stored for Nibbles {
    fn quantise(&mut self, output: usize, weights: &[f32; BLOCK]) -> bool {
        let (low, high) = weights.iter().fold((f32::MAX, f32::MIN), |(low, high), w| (low.min(*w), high.max(*w)));
        let (scale, minimum) = (f16::from_f32((high - low) / 15.0), f16::from_f32(low));
        (self.scale[output], self.minimum[output]) = (scale, minimum);
        let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
        for (k, w) in weights.iter().enumerate() {
            let number = ((w - minimum.to_f32()) * inverse).round().clamp(0.0, 15.0) as u8;
            let byte = &mut self.numbers[k % (BLOCK / 2) / 4][output][k % 4];
            *byte |= if k < BLOCK / 2 { number } else { number << 4 };
        }
        scale.is_finite() && minimum.is_finite() && weights.iter().all(|w| w.is_finite())
    }
    fn get(&self, output: usize, input: usize) -> f32 {
        let byte = self.numbers[input % (BLOCK / 2) / 4][output][input % 4];
        let number = if input < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        self.scale[output].to_f32() * f32::from(number) + self.minimum[output].to_f32()
    }
}

impl Block32 for FineNibbles {
    type Wide = WideFineNibbles;
    type Unit = [i16; 2];
    const UNITS: usize = PAIRS;
    const STEPS: f32 = 32767.0;

    fn blank() -> WideFineNibbles {
        WideFineNibbles { scale: [0.0; LANES], minimum: [0.0; LANES], numbers: [[[0; 2]; LANES]; PAIRS] }
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, to: &mut WideFineNibbles) {
        s.store(&mut to.scale, s.load_f16(&self.0.scale));
        s.store(&mut to.minimum, s.load_f16(&self.0.minimum));
        let (to, _) = to.numbers.as_chunks_mut::<4>();
        for (to, numbers) in to.iter_mut().zip(&self.0.numbers) {
            for (to, pairs) in to.iter_mut().zip(s.nibble_pairs(s.load_quads(numbers))) {
                s.store_pairs(to, pairs);
            }
        }
    }
    #[inline(always)]
    fn units(numbers: &[i32; BLOCK]) -> impl Iterator<Item = [i16; 2]> {
        (0..PAIRS).map(|i| {
            let first = i / 4 * 4 + i % 2 * (BLOCK / 2) + i % 4 / 2;
            [numbers[first] as i16, numbers[first + 2] as i16]
        })
    }
    #[inline(always)]
    fn multiply<S: Simd, const R: usize>(
        wide: &WideFineNibbles,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    ) {
        let dots = dot_pairs(s, &wide.numbers, x);
        let (scale, minimum) = (s.load(&wide.scale), s.load(&wide.minimum));
        for r in 0..R {
            sums[r] = s.fma(s.mul(s.to_float(dots[r]), scale), s.splat(parts[0][r]), sums[r]);
            sums[r] = s.fma(minimum, s.splat(parts[1][r]), sums[r]);
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
        let (x, _) = x[..PAIRS].as_chunks::<4>();
        let mut dots = [s.zero(); R];
        for (x, numbers) in x.iter().zip(&self.0.numbers) {
            for (x, w) in x.iter().zip(s.nibble_pairs(s.load_quads(numbers))) {
                for r in 0..R {
                    dots[r] = s.dot_pairs(dots[r], w, s.splat_pair(x[r]));
                }
            }
        }
        let (scale, minimum) = (s.load_f16(&self.0.scale), s.load_f16(&self.0.minimum));
        for r in 0..R {
            sums[r] = s.fma(s.mul(s.to_float(dots[r]), scale), s.splat(parts[0][r]), sums[r]);
            sums[r] = s.fma(minimum, s.splat(parts[1][r]), sums[r]);
        }
    }
}

/// The sums of a block's products with `R` rows, as 32-bit integers: 32 * 127 * 32767 is far from 2^31.
#[inline(always)]
fn dot_pairs<S: Simd, const R: usize>(s: S, numbers: &[[[i16; 2]; LANES]; PAIRS], x: &[[[i16; 2]; R]]) -> [S::I; R] {
    let x = &x[..PAIRS];
    let mut dots = [s.zero(); R];
    for i in 0..PAIRS {
        let w = s.load_pairs(&numbers[i]);
        for r in 0..R {
            dots[r] = s.dot_pairs(dots[r], w, s.splat_pair(x[i][r]));
        }
    }
    dots
}

/// Blocks of one panel over `cols` inputs.
pub(crate) fn panel_len(cols: usize) -> usize {
    cols.div_ceil(BLOCK)
}

/// `weight(row, column)` in blocks; `None` if a number is not finite or too large for a scale in f16.
pub(crate) fn quantise<B: Stored>(
    rows: usize,
    cols: usize,
    weight: impl Fn(usize, usize) -> f32 + Sync,
) -> Option<Vec<B>> {
    fill(rows, cols, |block: &mut B, output, row, start| {
        let mut weights = [0.0; BLOCK];
        weights.iter_mut().zip(start..cols).for_each(|(to, column)| *to = weight(row, column));
        block.quantise(output, &weights)
    })
}

/// Rows of GGUF's `Q8_0` blocks: scale, 32 signed bytes. `cols` is a multiple of 32. `None` if a scale is not finite.
pub(crate) fn from_q8_0(rows: usize, cols: usize, bytes: &[u8]) -> Option<Vec<Bytes>> {
    const SIZE: usize = 34;
    fill(rows, cols, |block: &mut Bytes, output, row, start| {
        let from = &bytes[(row * cols + start) / BLOCK * SIZE..][..SIZE];
        let scale = f16::from_le_bytes([from[0], from[1]]);
        block.scale[output] = scale;
        for (k, byte) in from[2..].iter().enumerate() {
            block.numbers[k / 2][output][k % 2] = *byte as i8;
        }
        scale.is_finite()
    })
}

/// Rows of GGUF's `Q4_0` blocks (scale, 16 bytes of two numbers, `scale * (number - 8)`) or, with `minimum`, of `Q4_1`
/// blocks (scale, minimum, 16 bytes). `cols` is a multiple of 32. `None` if a scale or minimum is not finite in f16.
pub(crate) fn from_q4(rows: usize, cols: usize, bytes: &[u8], minimum: bool) -> Option<Vec<Nibbles>> {
    let size = if minimum { 20 } else { 18 };
    fill(rows, cols, |block: &mut Nibbles, output, row, start| {
        let from = &bytes[(row * cols + start) / BLOCK * size..][..size];
        let scale = f16::from_le_bytes([from[0], from[1]]);
        let low = if minimum { f16::from_le_bytes([from[2], from[3]]) } else { f16::from_f32(-8.0 * scale.to_f32()) };
        (block.scale[output], block.minimum[output]) = (scale, low);
        for (k, byte) in from[size - BLOCK / 2..].iter().enumerate() {
            block.numbers[k / 4][output][k % 4] = *byte;
        }
        scale.is_finite() && low.is_finite()
    })
}

/// Blocks of all panels, each output of each made by `set(block, output, row, first input)`; `None` if one returned `false`.
fn fill<B: Stored>(
    rows: usize,
    cols: usize,
    set: impl Fn(&mut B, usize, usize, usize) -> bool + Sync,
) -> Option<Vec<B>> {
    let len = panel_len(cols);
    let mut blocks = vec![B::zeroed(); rows.div_ceil(LANES) * len];
    let fine = len == 0
        || blocks.par_chunks_mut(len).enumerate().all(|(p, panel)| {
            panel.iter_mut().enumerate().all(|(b, block)| {
                let mut rows = (p * LANES..rows.min((p + 1) * LANES)).enumerate();
                rows.all(|(output, row)| set(block, output, row, b * BLOCK))
            })
        });
    fine.then_some(blocks)
}

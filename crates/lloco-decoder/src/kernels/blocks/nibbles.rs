//! Four bits a weight, `scale * number + minimum`.

use super::{BLOCK, Block32, PAIRS, Parts, Stored, dot_pairs, fill, fill_runs};
use crate::gguf::q4_k_group;
use crate::kernels::pages::Pages;
use crate::kernels::simd::{LANES, PairUnit, Simd};
use half::f16;

/// Fours of inputs of one block.
const QUADS: usize = BLOCK / 4;

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

/// A block with its numbers apart, for [`Nibbles`] fours of eight bits, for [`FineNibbles`] pairs of sixteen.
#[derive(Clone, Copy)]
pub(crate) struct Wide<N> {
    scale: [f32; LANES],
    minimum: [f32; LANES],
    numbers: N,
}

impl<N> Wide<N> {
    fn blank(numbers: N) -> Self {
        Self { scale: [0.0; LANES], minimum: [0.0; LANES], numbers }
    }
    #[inline(always)]
    fn set_parts<S: Simd>(&mut self, s: S, from: &Nibbles) {
        let [scale, minimum] = from.parts(s);
        s.store(&mut self.scale, scale);
        s.store(&mut self.minimum, minimum);
    }
    #[inline(always)]
    fn parts<S: Simd>(&self, s: S) -> [S::F; 2] {
        [s.load(&self.scale), s.load(&self.minimum)]
    }
}

impl Nibbles {
    /// Stores 32 numbers of one output, `i` in the low half of a byte and `i + 16` in its high half; `false` if scale or
    /// minimum is not finite.
    fn set(&mut self, output: usize, scale: f16, minimum: f16, numbers: [u8; BLOCK / 2]) -> bool {
        (self.scale[output], self.minimum[output]) = (scale, minimum);
        for (k, byte) in numbers.into_iter().enumerate() {
            self.numbers[k / 4][output][k % 4] = byte;
        }
        scale.is_finite() && minimum.is_finite()
    }
    /// Scales and minima.
    #[inline(always)]
    fn parts<S: Simd>(&self, s: S) -> [S::F; 2] {
        [s.load_f16(&self.scale), s.load_f16(&self.minimum)]
    }
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

impl Block32 for Nibbles {
    type Wide = Wide<[[[u8; 4]; LANES]; QUADS]>;
    type Unit = [i8; 4];
    const UNITS: usize = QUADS;
    const STEPS: f32 = 127.0;

    fn blank() -> Self::Wide {
        Wide::blank([[[0; 4]; LANES]; QUADS])
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, to: &mut Self::Wide) {
        to.set_parts(s, self);
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
        wide: &Self::Wide,
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
                dots[r] = s.dot_quads::<R>(dots[r], w, s.splat_quad(x[i][r]));
            }
        }
        for dot in &mut dots {
            *dot = s.whole_quads::<R>(*dot);
        }
        add_scaled(s, dots, wide.parts(s), parts, sums);
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
                dots[r] = s.dot_quads::<R>(dots[r], low, s.splat_quad(x[i][r]));
                dots[r] = s.dot_quads::<R>(dots[r], high, s.splat_quad(x[i + QUADS / 2][r]));
            }
        }
        for dot in &mut dots {
            *dot = s.whole_quads::<R>(*dot);
        }
        add_scaled(s, dots, self.parts(s), parts, sums);
    }
}

impl Stored for Nibbles {
    fn quantise(&mut self, output: usize, weights: &[f32; BLOCK]) -> bool {
        let (low, high) = weights.iter().fold((f32::MAX, f32::MIN), |(low, high), w| (low.min(*w), high.max(*w)));
        let (scale, minimum) = (f16::from_f32((high - low) / 15.0), f16::from_f32(low));
        let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
        let numbers = weights.map(|w| ((w - minimum.to_f32()) * inverse).round().clamp(0.0, 15.0) as u8);
        self.set(output, scale, minimum, pairs(numbers)) && weights.iter().all(|w| w.is_finite())
    }
    fn get(&self, output: usize, input: usize) -> f32 {
        let byte = self.numbers[input % (BLOCK / 2) / 4][output][input % 4];
        let number = if input < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        self.scale[output].to_f32() * f32::from(number) + self.minimum[output].to_f32()
    }
    #[inline(always)]
    fn unpack<S: Simd>(&self, s: S, to: &mut [PairUnit; PAIRS]) {
        let [scale, minimum] = self.parts(s);
        let (low, high) = to.split_at_mut(PAIRS / 2);
        let places = low.as_chunks_mut::<2>().0.iter_mut().zip(high.as_chunks_mut::<2>().0);
        for (([low, next_low], [high, next_high]), numbers) in places.zip(&self.numbers) {
            // The low and the high half of each of four bytes.
            let halves = s.eighths(s.load_quads(numbers));
            unpack_unit(s, low, [halves[0], halves[2]], scale, minimum);
            unpack_unit(s, high, [halves[1], halves[3]], scale, minimum);
            unpack_unit(s, next_low, [halves[4], halves[6]], scale, minimum);
            unpack_unit(s, next_high, [halves[5], halves[7]], scale, minimum);
        }
    }
}

impl Block32 for FineNibbles {
    type Wide = Wide<[[[i16; 2]; LANES]; PAIRS]>;
    type Unit = [i16; 2];
    const UNITS: usize = PAIRS;
    const STEPS: f32 = 32767.0;

    fn blank() -> Self::Wide {
        Wide::blank([[[0; 2]; LANES]; PAIRS])
    }
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, to: &mut Self::Wide) {
        to.set_parts(s, &self.0);
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
        wide: &Self::Wide,
        s: S,
        x: &[[Self::Unit; R]],
        parts: Parts<R>,
        sums: &mut [S::F; R],
    ) {
        let dots = dot_pairs(s, &wide.numbers, x);
        add_scaled(s, dots, wide.parts(s), parts, sums);
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
                    dots[r] = s.dot_pairs::<R>(dots[r], w, s.splat_pair(x[r]));
                }
            }
        }
        add_scaled(s, dots, self.0.parts(s), parts, sums);
    }
}

/// `scale * number + minimum` of two inputs, rounded to bf16. A function, as a closure would lose its instructions.
#[inline(always)]
fn unpack_unit<S: Simd>(s: S, to: &mut PairUnit, numbers: [S::I; 2], scale: S::F, minimum: S::F) {
    let [even, odd] = numbers;
    s.store_unit(to, s.fma(s.to_float(even), scale, minimum), s.fma(s.to_float(odd), scale, minimum));
}

/// `sums += (dots * scale) * scale of x + minimum * sum of x`, a row each.
#[inline(always)]
fn add_scaled<S: Simd, const R: usize>(
    s: S,
    dots: [S::I; R],
    [scale, minimum]: [S::F; 2],
    parts: Parts<R>,
    sums: &mut [S::F; R],
) {
    for r in 0..R {
        sums[r] = s.fma(s.mul(s.to_float(dots[r]), scale), s.splat(parts[0][r]), sums[r]);
        sums[r] = s.fma(minimum, s.splat(parts[1][r]), sums[r]);
    }
}

/// Numbers `i` in low halves, `i + 16` in high halves.
fn pairs(numbers: [u8; BLOCK]) -> [u8; BLOCK / 2] {
    std::array::from_fn(|i| numbers[i] | numbers[i + BLOCK / 2] << 4)
}

/// Rows of GGUF's `Q4_0` blocks (scale, 16 bytes of two numbers, `scale * (number - 8)`) or, with `minimum`, of `Q4_1`
/// blocks (scale, minimum, 16 bytes). `cols` is a multiple of 32. `None` if a scale or minimum is not finite in f16.
pub(crate) fn from_q4(rows: usize, cols: usize, bytes: &[u8], minimum: bool) -> Option<Pages<Nibbles>> {
    let size = if minimum { 20 } else { 18 };
    fill(rows, cols, |block: &mut Nibbles, output, row, start| {
        let from = &bytes[(row * cols + start) / BLOCK * size..][..size];
        let scale = f16::from_le_bytes([from[0], from[1]]);
        let low = if minimum { f16::from_le_bytes([from[2], from[3]]) } else { f16::from_f32(-8.0 * scale.to_f32()) };
        from.last_chunk().is_some_and(|numbers| block.set(output, scale, low, *numbers))
    })
}

/// Rows of GGUF's `Q4_K` blocks: eight groups of 32, whose scales and minima are rounded to f16. `cols` is a multiple of 256.
/// `None` if one is not finite there.
pub(crate) fn from_q4_k(rows: usize, cols: usize, bytes: &[u8]) -> Option<Pages<Nibbles>> {
    let (all, _) = bytes.as_chunks::<144>();
    fill_runs(rows, cols, 8, |blocks: &mut [Nibbles], output, row, start| {
        let from = &all[(row * cols + start) / 256];
        blocks.iter_mut().enumerate().all(|(j, block)| {
            let (scale, minimum, numbers) = q4_k_group(from, j);
            block.set(output, f16::from_f32(scale), f16::from_f32(-minimum), pairs(numbers))
        })
    })
}

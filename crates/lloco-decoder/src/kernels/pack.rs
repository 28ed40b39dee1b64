//! Frozen weights `[rows_out, cols_in]`, laid out once for the kernels.
//!
//! A *panel* holds sixteen outputs, a *unit* of it two neighbouring inputs of all sixteen: `panel[input / 2][output][input % 2]`.
//! The same order suits `tdpbf16ps` (a tile row is a unit), `vdpbf16ps` (a register is a unit) and plain FMA (a unit
//! widens to two rows of sixteen f32). Inputs are padded with zeros to [`DEPTH`], outputs to sixteen.

use super::blocks::{self, BLOCK, Bytes, Nibbles, Stored};
use super::cpu::Isa;
use super::pages::Pages;
use super::rows::each_piece;
use super::simd::{LANES, PairUnit, Simd};
use crate::gguf::BlockType;
use bytemuck::Zeroable;
use half::bf16;
use std::sync::{Arc, OnceLock};

/// Inputs are padded to a multiple of this: the depth of one tile product.
pub(crate) const DEPTH: usize = 32;

/// A frozen weight matrix in packed form. A clone shares it.
#[derive(Clone)]
pub(crate) struct PackedLinear(Arc<Packed>);

struct Packed {
    shape: [usize; 2],
    panels: Panels,
    transposed: OnceLock<PackedLinear>,
}

/// The packed numbers, `rows_out / 16` panels of equal length one after the other.
pub(crate) enum Panels {
    /// Two bytes a weight.
    Bf16(Pages<PairUnit>),
    /// Four bytes a weight.
    F32(Pages<WideUnit>),
    /// Blocks of 32 inputs, 8.5 bits a weight.
    Int8(Pages<Bytes>),
    /// Blocks of 32 inputs, 5 bits a weight.
    Q4(Pages<Nibbles>, Inputs),
}

/// What inputs of four-bit blocks are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// Eight bits: fast, with a loss that shows.
    Coarse,
    /// Sixteen bits: without one.
    Fine,
}

/// As [`PairUnit`], in f32 and with the two inputs apart.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct WideUnit(pub(crate) [[f32; LANES]; 2]);

/// A unit of any weight type, as the FMA kernels see it.
pub(crate) trait Unit: Copy + Send + Sync + Zeroable + 'static {
    /// The first inputs of all sixteen outputs.
    fn even<S: Simd>(&self, s: S) -> S::F;
    /// The second inputs of all sixteen outputs.
    fn odd<S: Simd>(&self, s: S) -> S::F;
    /// Stores one weight.
    fn set(&mut self, output: usize, input: usize, weight: f32);
    /// Reads one weight.
    fn get(&self, output: usize, input: usize) -> f32;
}

impl Unit for PairUnit {
    #[inline(always)]
    fn even<S: Simd>(&self, s: S) -> S::F {
        s.even(self)
    }
    #[inline(always)]
    fn odd<S: Simd>(&self, s: S) -> S::F {
        s.odd(self)
    }
    #[inline(always)]
    fn set(&mut self, output: usize, input: usize, weight: f32) {
        self.0[output][input] = bf16::from_f32(weight);
    }
    #[inline(always)]
    fn get(&self, output: usize, input: usize) -> f32 {
        self.0[output][input].to_f32()
    }
}

impl Unit for WideUnit {
    #[inline(always)]
    fn even<S: Simd>(&self, s: S) -> S::F {
        s.load(&self.0[0])
    }
    #[inline(always)]
    fn odd<S: Simd>(&self, s: S) -> S::F {
        s.load(&self.0[1])
    }
    #[inline(always)]
    fn set(&mut self, output: usize, input: usize, weight: f32) {
        self.0[input][output] = weight;
    }
    #[inline(always)]
    fn get(&self, output: usize, input: usize) -> f32 {
        self.0[input][output]
    }
}

impl std::fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.0.panels {
            Panels::Bf16(_) => "bf16",
            Panels::F32(_) => "f32",
            Panels::Int8(_) => "int8",
            Panels::Q4(_, _) => "q4",
        };
        let [rows_out, cols_in] = self.0.shape;
        write!(f, "PackedLinear({kind} [{rows_out}, {cols_in}])")
    }
}

impl PackedLinear {
    /// Packs `weight` `[rows_out, cols_in]`, rounded to bf16 (to nearest, ties to even): two bytes a weight.
    ///
    /// # Panics
    /// If `weight` is not `rows_out * cols_in` long.
    pub(crate) fn bf16(rows_out: usize, cols_in: usize, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), rows_out * cols_in, "weight of shape [{rows_out}, {cols_in}]");
        Self::new(rows_out, cols_in, Panels::Bf16(pack(rows_out, cols_in, |n, k| weight[n * cols_in + k])))
    }

    /// Packs `weight` `[rows_out, cols_in]` as it is: four bytes a weight.
    ///
    /// # Panics
    /// If `weight` is not `rows_out * cols_in` long.
    pub(crate) fn f32(rows_out: usize, cols_in: usize, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), rows_out * cols_in, "weight of shape [{rows_out}, {cols_in}]");
        Self::new(rows_out, cols_in, Panels::F32(pack(rows_out, cols_in, |n, k| weight[n * cols_in + k])))
    }

    /// Packs `weight` `[rows_out, cols_in]` as signed bytes with a scale for each 32 inputs of an output: 8.5 bits a weight.
    /// `None` if a number is not finite, or beyond 8 million: no scale in f16 holds it.
    ///
    /// # Panics
    /// If `weight` is not `rows_out * cols_in` long.
    pub(crate) fn int8(rows_out: usize, cols_in: usize, weight: &[f32]) -> Option<Self> {
        assert_eq!(weight.len(), rows_out * cols_in, "weight of shape [{rows_out}, {cols_in}]");
        Some(Self::new(
            rows_out,
            cols_in,
            Panels::Int8(blocks::quantise(rows_out, cols_in, |n, k| weight[n * cols_in + k])?),
        ))
    }

    /// Packs `weight` `[rows_out, cols_in]` as four-bit numbers with scale and minimum for each 32 inputs of an output: 5
    /// bits a weight. `None` if a number is not finite, or beyond 65,504.
    ///
    /// # Panics
    /// If `weight` is not `rows_out * cols_in` long.
    pub(crate) fn q4(rows_out: usize, cols_in: usize, weight: &[f32], inputs: Inputs) -> Option<Self> {
        assert_eq!(weight.len(), rows_out * cols_in, "weight of shape [{rows_out}, {cols_in}]");
        Some(Self::new(
            rows_out,
            cols_in,
            Panels::Q4(blocks::quantise(rows_out, cols_in, |n, k| weight[n * cols_in + k])?, inputs),
        ))
    }

    /// Packs the blocks of a GGUF tensor `[rows_out, cols_in]` as [`blocks`] says, without expanding more of them than one at
    /// a time. `inputs` is for what comes to four bits (`Q4_0`, `Q4_1`, `Q4_K`); what comes to eight always has fine ones.
    /// `None` where the numbers cannot be kept: a type without blocks, `bytes` of another length, `cols_in` no multiple of a
    /// block's values, or a number or scale that is not finite in f16.
    pub(crate) fn gguf(rows_out: usize, cols_in: usize, kind: BlockType, bytes: &[u8], inputs: Inputs) -> Option<Self> {
        let count = rows_out.checked_mul(cols_in)?;
        let len = (count / kind.block_values()).checked_mul(kind.block_bytes())?;
        if !cols_in.is_multiple_of(kind.block_values()) || bytes.len() != len {
            return None;
        }
        let panels = match kind {
            BlockType::Q8_0 => Panels::Int8(blocks::from_q8_0(rows_out, cols_in, bytes)?),
            BlockType::Q5_0 => Panels::Int8(blocks::from_q5_0(rows_out, cols_in, bytes)?),
            BlockType::Q5_1 | BlockType::Q5K | BlockType::Q6K => {
                Panels::Int8(blocks::requantised(rows_out, cols_in, kind, bytes)?)
            }
            BlockType::Q4_0 => Panels::Q4(blocks::from_q4(rows_out, cols_in, bytes, false)?, inputs),
            BlockType::Q4_1 => Panels::Q4(blocks::from_q4(rows_out, cols_in, bytes, true)?, inputs),
            BlockType::Q4K => Panels::Q4(blocks::from_q4_k(rows_out, cols_in, bytes)?, inputs),
            BlockType::F32 | BlockType::F16 | BlockType::Bf16 => return None,
        };
        Some(Self::new(rows_out, cols_in, panels))
    }

    fn new(rows_out: usize, cols_in: usize, panels: Panels) -> Self {
        Self(Arc::new(Packed { shape: [rows_out, cols_in], panels, transposed: OnceLock::new() }))
    }

    /// `[rows_out, cols_in]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.0.shape
    }

    /// Writes row `n`, the weights of one output, to `out` `[cols_in]`.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub(crate) fn row(&self, n: usize, out: &mut [f32]) {
        let [rows, cols] = self.0.shape;
        assert!(n < rows && out.len() == cols, "row {n} of shape [{rows}, {cols}] into {}", out.len());
        let (panel, o) = (n / LANES, n % LANES);
        let (units, blocks) = (panel * panel_len(cols), panel * blocks::panel_len(cols));
        let mut read = |weight: &dyn Fn(usize) -> f32| out.iter_mut().enumerate().for_each(|(k, out)| *out = weight(k));
        match &self.0.panels {
            Panels::Bf16(all) => read(&|k| all[units + k / 2].get(o, k % 2)),
            Panels::F32(all) => read(&|k| all[units + k / 2].get(o, k % 2)),
            Panels::Int8(all) => read(&|k| all[blocks + k / BLOCK].get(o, k % BLOCK)),
            Panels::Q4(all, _) => read(&|k| all[blocks + k / BLOCK].get(o, k % BLOCK)),
        }
    }

    /// Bytes held, the transposed copy included once it exists.
    pub(crate) fn bytes(&self) -> usize {
        let own = match &self.0.panels {
            Panels::Bf16(units) => size_of_val(&**units),
            Panels::F32(units) => size_of_val(&**units),
            Panels::Int8(blocks) => size_of_val(&**blocks),
            Panels::Q4(blocks, _) => size_of_val(&**blocks),
        };
        own + self.0.transposed.get().map_or(0, Self::bytes)
    }

    /// Other numbers, packed as these are; `None` where the type does not hold them.
    ///
    /// # Panics
    /// If `weight` is not `rows_out * cols_in` long.
    pub(crate) fn alike(&self, rows_out: usize, cols_in: usize, weight: &[f32]) -> Option<Self> {
        match &self.0.panels {
            Panels::Bf16(_) => Some(Self::bf16(rows_out, cols_in, weight)),
            Panels::F32(_) => Some(Self::f32(rows_out, cols_in, weight)),
            Panels::Int8(_) => Self::int8(rows_out, cols_in, weight),
            Panels::Q4(_, inputs) => Self::q4(rows_out, cols_in, weight, *inputs),
        }
    }

    /// The packed numbers.
    pub(crate) fn panels(&self) -> &Panels {
        &self.0.panels
    }

    /// The transposed matrix, `[cols_in, rows_out]`, for the gradient of the input. Made on first use and kept: as much
    /// memory again. Blocks of inputs would become blocks of outputs; those are made anew with eight bits a number, which
    /// is as exact as bf16, or become bf16 where the CPU multiplies that faster.
    pub(crate) fn transposed(&self) -> &Self {
        if let Some(made) = self.0.transposed.get() {
            return made;
        }
        // Not within the cell's lock: its threads may be at work for somebody who waits for that lock.
        let made = self.turned(Isa::best());
        self.0.transposed.get_or_init(|| made)
    }

    /// The transposed matrix, as the kernels of `isa` want it.
    pub(crate) fn turned(&self, isa: Isa) -> Self {
        let [rows, cols] = self.0.shape;
        let panels = match &self.0.panels {
            Panels::Bf16(units) => Panels::Bf16(transpose(rows, cols, units)),
            Panels::F32(units) => Panels::F32(transpose(rows, cols, units)),
            Panels::Int8(blocks) => transpose_blocks(isa, rows, cols, blocks),
            Panels::Q4(blocks, _) => transpose_blocks(isa, rows, cols, blocks),
        };
        Self::new(cols, rows, panels)
    }
}

/// Units of one panel over `cols` inputs.
pub(crate) fn panel_len(cols: usize) -> usize {
    cols.next_multiple_of(DEPTH) / 2
}

fn pack<U: Unit>(rows: usize, cols: usize, weight: impl Fn(usize, usize) -> f32 + Sync) -> Pages<U> {
    let len = panel_len(cols);
    let mut units = Pages::<U>::zeroed(rows.div_ceil(LANES) * len);
    if len == 0 {
        return units;
    }
    each_piece(&mut units, len, |p, panel| {
        for (o, n) in (p * LANES..rows.min((p + 1) * LANES)).enumerate() {
            for k in 0..cols {
                panel[k / 2].set(o, k % 2, weight(n, k));
            }
        }
    });
    units
}

fn transpose<U: Unit>(rows: usize, cols: usize, units: &[U]) -> Pages<U> {
    let len = panel_len(cols);
    pack(cols, rows, |n, k| units[k / LANES * len + n / 2].get(k % LANES, n % 2))
}

fn transpose_blocks<B: Stored>(isa: Isa, rows: usize, cols: usize, from: &[B]) -> Panels {
    let len = blocks::panel_len(cols);
    let weight = |n: usize, k: usize| from[k / LANES * len + n / BLOCK].get(k % LANES, n % BLOCK);
    let bytes = if isa < Isa::Avx512Bf16 { blocks::quantise(cols, rows, weight) } else { None };
    bytes.map_or_else(|| Panels::Bf16(pack(cols, rows, weight)), Panels::Int8)
}

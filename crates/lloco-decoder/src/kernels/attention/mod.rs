//! Attention with grouped heads, causal or not. No score matrix: a task keeps one tile of scores.
//!
//! | file | what is there |
//! |---|---|
//! | `prefill` | many queries |
//! | `tiled`, `tiled_keys` | many queries, rounded, by tile registers |
//! | `decode`, `streamed` | few queries over many keys |
//! | `packed` | sequences in one, that see only themselves and their trunk |
//! | `cache` | new keys and values written behind those that are there |
//! | `backward`, `tiled_backward`, `scratch` | gradients |
//! | `softmax`, `lazy_softmax`, `tiles`, `panels` | what these have in common |

mod backward;
pub(crate) mod cache;
mod decode;
mod lazy_softmax;
pub(crate) mod packed;
mod panels;
mod prefill;
mod scratch;
mod softmax;
mod streamed;
pub(super) mod tiled;
pub(super) mod tiled_backward;
mod tiled_keys;
mod tiles;

pub(crate) use backward::{Gradients, Saved, attention_backward};
pub(crate) use tiled_keys::give_back;

use super::cpu::Isa;
use super::simd::{Block, LANES, Simd};
use burn::tensor::Element;
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;

/// Keys of one tile.
pub(crate) const TILE: usize = 64;

/// Sizes of one attention call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    /// Whether a query sees no key behind its own position.
    pub(crate) causal: bool,
}

impl Sizes {
    /// Query heads that share a key head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The keys that query `i` sees, left padding aside: `0..visible`.
    #[inline(always)]
    pub(crate) fn visible(&self, i: usize) -> usize {
        if self.causal { (i + 1 + self.keys).saturating_sub(self.queries) } else { self.keys }
    }

    /// The first query that sees key `j`.
    pub(crate) fn first(&self, j: usize) -> usize {
        if self.causal { (j + self.queries).saturating_sub(self.keys) } else { 0 }
    }

    /// Of each dot product.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// A number that keys and values may be kept in.
pub(crate) trait Stored: Element + Pod {
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F;
    fn widen(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn keep(from: &[f32], to: &mut [Self]);
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Block) -> S::F {
        s.load(from)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    fn keep(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl Stored for half::bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_bf16(from)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn keep(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

impl Stored for half::f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_f16(from)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn keep(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

/// A `[batch, head, row, dim]` tensor read in place; only its last dimension must be dense.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) offset: usize,
    /// Of batch, head and row, in elements.
    pub(crate) strides: [usize; 3],
    pub(crate) dim: usize,
}

impl<'a, T> View<'a, T> {
    #[inline(always)]
    pub(crate) fn row(&self, batch: usize, head: usize, row: usize) -> &'a [T] {
        let at = self.offset + batch * self.strides[0] + head * self.strides[1] + row * self.strides[2];
        &self.data[at..at + self.dim]
    }
}

/// What attention reads.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a, T> {
    pub(crate) sizes: Sizes,
    pub(crate) q: View<'a, f32>,
    pub(crate) k: View<'a, T>,
    pub(crate) v: View<'a, T>,
    /// Masked keys at the start of each batch row; empty for none.
    pub(crate) padding: &'a [usize],
    /// Whether products may round their factors to bf16, where that is faster.
    pub(crate) rounded: bool,
}

impl<T> Inputs<'_, T> {
    #[inline(always)]
    pub(crate) fn padding(&self, batch: usize) -> usize {
        self.padding.get(batch).copied().unwrap_or(0)
    }
}

/// Attention into `out` `[batch, queries, heads * dim]`; with `lse` `[batch, heads, queries]` also the logarithm of
/// each row's sum of exponentials, which the backward pass wants. A row that sees no key gives 0 and `-inf`.
pub(crate) fn attention<T: Stored>(isa: Isa, inputs: Inputs<'_, T>, out: &mut [f32], lse: Option<&mut [f32]>) {
    let sizes = inputs.sizes;
    assert_eq!(out.len(), sizes.batch * sizes.queries * sizes.heads * sizes.dim, "{sizes:?}");
    if out.is_empty() {
        return;
    }
    let mut unused = Vec::new();
    let lse = lse.unwrap_or_else(|| {
        unused.resize(sizes.batch * sizes.heads * sizes.queries, 0.0);
        &mut unused
    });
    assert_eq!(lse.len(), sizes.batch * sizes.heads * sizes.queries, "{sizes:?}");
    if decode::suits(&sizes) {
        return decode::attention(isa, inputs, out, lse);
    }
    if inputs.rounded && isa >= Isa::Amx {
        return tiled::attention(isa, inputs, out, lse);
    }
    prefill::attention(isa, inputs, out, lse);
}

//! CPU kernels for the flex backend: what burn's own operations leave slow in a frozen transformer.
//!
//! | file | what is there |
//! |---|---|
//! | `cpu` | which instructions the CPU has, and the way into code compiled for them |
//! | `simd` | sixteen f32 lanes on any of them |
//! | `tile` | the inner loop of all matrix products |
//! | `pack` | frozen weights in the kernels' order ([`PackedLinear`]) |
//! | `products` | products with them, many rows or few, each type by its kernel |
//! | `linear`, `dots`, `tiles` | those kernels: in f32 by FMA, in bf16 by dot products and by tiles of them |
//! | `matmul`, `low_rank` | products of matrices as they lie, and what an adapter adds |
//! | `blocks`, `integer` | weights of eight and four bits in blocks of 32, and their kernel, in integers |
//! | `attention` | attention without a score matrix: prefill, decoding, gradients |
//! | `loss` | cross entropy of hidden rows under a frozen head, a few rows of logits at a time |
//! | `norm`, `rope`, `swiglu`, `dropout` | what stands between the products, one pass each |
//! | `pages`, `reuse`, `kept` | memory: of weights in large pages, of outputs kept for the next |
//! | `cut`, `crew`, `rows`, `shared` | sharing out work and output among threads |
//! | `extension` | the way in from burn tensors, and the gradients' way back |
//!
//! This is the crate's one module, beside the memory map, with unsafe code, for four reasons: vector instructions
//! (`simd`, `dots` and `tiles`, behind types that prove the CPU has them), the system's leave for tiles (`cpu`), what threads
//! share (work that lives until they are done with it, `crew`, and outputs that they write in disjoint pieces, `shared`),
//! and memory that tensors and weights own (`reuse`, `pages`). Each place says why it is sound. All slices are checked; no
//! kernel trusts a shape.
#![allow(unsafe_code, reason = "vector instructions, and outputs shared among threads in disjoint pieces")]
#![allow(clippy::needless_range_loop, reason = "arrays of registers, several side by side")]

mod attention;
mod blocks;
mod cpu;
mod crew;
mod cut;
mod dots;
mod dropout;
mod extension;
mod integer;
mod kept;
mod linear;
mod loss;
mod low_rank;
mod matmul;
mod norm;
mod pack;
mod pages;
mod products;
mod reuse;
mod rope;
mod rows;
mod shared;
mod simd;
mod swiglu;
#[cfg(test)]
mod tests;
mod tile;
mod tiles;

pub(crate) use crew::ready;
pub(crate) use extension::{
    add_feed_forward, add_linear, attention, cached_attention, cross_entropy, dropout, linear, linear_pair,
    linear_triple, low_rank, normed_triple, on_flex, rms_norm, rope, rows, swiglu,
};
pub(crate) use pack::{Inputs, PackedLinear};
pub(crate) use pages::{zeros, zeros_alone};

use burn::{backend::DispatchDevice, tensor::Device};

/// Gives memory that is kept for the next outputs back to the system, and what this thread keeps for the next attention: after
/// a training, or before a long rest.
pub(crate) fn give_back() {
    kept::give_back();
    attention::give_back();
}

/// Whether `device` is the CPU backend that the kernels serve, with autodiff or without.
pub(crate) fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

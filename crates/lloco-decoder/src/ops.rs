//! The operations that a layer is made of.
//!
//! Each is written once in burn's own operations, for every device. On the CPU backend `flex` the
//! same call goes to this crate's kernels, which compute the same function.
//!
//! Weights are frozen, all but the factors of [`low_rank`]: they live without autodiff and are lifted ([`like`]) beside a
//! tracked input.

use std::sync::Arc;

use burn::tensor::{FloatDType, Int, Tensor, TensorData, activation, s};

#[cfg(feature = "flex")]
use crate::kernels;
use crate::{blockwise, packing::Piece};

/// `tensor` in the autodiff context of `x`, so that both may meet in one operation.
pub(crate) fn like<const D: usize, const E: usize>(tensor: &Tensor<D>, x: &Tensor<E>) -> Tensor<D> {
    match x.is_autodiff() && !tensor.is_autodiff() {
        true => Tensor::from_inner(tensor.clone()),
        false => tensor.clone(),
    }
}

/// `x W^T`: `x` `[batch, seq, in]`, `weight` `[out, in]` -> `[batch, seq, out]`.
pub(crate) fn linear(x: Tensor<3>, weight: &Tensor<2>) -> Tensor<3> {
    let [batch, seq, width] = x.dims();
    let dtype = x.dtype();
    let weight = like(weight, &x);
    let x = x.reshape([batch * seq, width]).cast(weight.dtype());
    x.matmul(weight.transpose()).cast(dtype).reshape([batch as i64, seq as i64, -1])
}

/// RMSNorm over the last dimension, computed in f32 (arXiv 1910.07467).
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, gamma: &Tensor<1>, eps: f64) -> Tensor<D> {
    let gamma = like(gamma, &x);
    #[cfg(feature = "flex")]
    if kernels::on_flex(&x) {
        return kernels::rms_norm(x, gamma, eps);
    }
    let dtype = x.dtype();
    let x = x.cast(FloatDType::F32);
    let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
    let y = x / (mean_square + eps).sqrt();
    (y * gamma.unsqueeze()).cast(dtype)
}

/// Rotary position embedding in the rotate-half convention (arXiv 2104.09864).
///
/// `x` `[batch, seq, heads, dim]`; `cos`, `sin` `[positions, dim / 2]`. Row `i` of sequence `b` stands at
/// position `offset + i - padding[b]`; an empty `padding` means none.
pub(crate) fn rope(x: Tensor<4>, cos: &Tensor<2>, sin: &Tensor<2>, offset: usize, padding: &[usize]) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if kernels::on_flex(&x) {
        return kernels::rope(x, cos.clone(), sin.clone(), offset, padding);
    }
    let [batch, seq, _, dim] = x.dims();
    let half = dim / 2;
    let rows = |table: &Tensor<2>| -> Tensor<4> {
        let rows: Tensor<4> = if padding.iter().all(|&pad| pad == 0) {
            table.clone().slice(s![offset..offset + seq, ..]).reshape([1, seq, 1, half])
        } else {
            let positions = (0..batch).flat_map(|b| {
                let pad = padding.get(b).copied().unwrap_or(0);
                (0..seq).map(move |i| (offset + i).saturating_sub(pad) as i64)
            });
            let data = TensorData::new(positions.collect::<Vec<i64>>(), [batch * seq]);
            let positions = Tensor::<1, Int>::from_data(data, &table.device());
            table.clone().select(0, positions).reshape([batch, seq, 1, half])
        };
        like(&rows, &x).cast(x.dtype())
    };
    let (cos, sin) = (rows(cos), rows(sin));
    let low = x.clone().slice(s![.., .., .., 0..half]);
    let high = x.slice(s![.., .., .., half..dim]);
    let rotated_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    let rotated_high = high * cos + low * sin;
    Tensor::cat(vec![rotated_low, rotated_high], 3)
}

/// Which keys a query sees, and how exactly: query `i` of sequence `b` keys `padding[b] ..= i + seq_k - seq_q` if `causal`,
/// else all from `padding[b]` on.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Empty for none.
    pub(crate) padding: Arc<[usize]>,
    pub(crate) causal: bool,
    /// Whether the CPU's kernels may round what they multiply to bf16, where that is faster.
    #[cfg_attr(not(feature = "flex"), allow(dead_code, reason = "only those kernels ask"))]
    pub(crate) rounded: bool,
    /// How the rows of the one sequence divide into such that see only themselves and their trunk, each row in one of them;
    /// empty for a sequence that is one. Queries and keys are then those of the same rows, and there is no padding.
    pub(crate) pieces: Arc<[Piece]>,
}

/// Grouped-query attention.
///
/// `q` `[batch, seq_q, heads, dim]`; `k`, `v` `[batch, kv_heads, seq_k, dim]` -> `[batch, seq_q, heads * dim]`. A query that
/// sees no key gives zeros.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, seen: &Seen) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if kernels::on_flex(&q) {
        return kernels::attention(q, k, v, seen.clone());
    }
    if !seen.pieces.is_empty() {
        return packed_attention(q, k, v, seen);
    }
    blockwise::attention(q, k, v, &seen.padding, seen.causal)
}

/// [`attention`] piece by piece.
pub(crate) fn packed_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, seen: &Seen) -> Tensor<3> {
    let alone = Seen { pieces: Arc::new([]), ..seen.clone() };
    let pieces = seen.pieces.iter().filter(|piece| !piece.rows.is_empty());
    let mixed = pieces.map(|Piece { rows, trunk }| {
        let keys = |x: &Tensor<4>| {
            let own = x.clone().slice(s![.., .., rows.clone(), ..]);
            match trunk.is_empty() {
                true => own,
                false => Tensor::cat(vec![x.clone().slice(s![.., .., trunk.clone(), ..]), own], 2),
            }
        };
        attention(q.clone().slice(s![.., rows.clone(), .., ..]), keys(&k), keys(&v), &alone)
    });
    Tensor::cat(mixed.collect(), 1)
}

/// `silu(gate) * up`, element by element (arXiv 2002.05202).
pub(crate) fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if kernels::on_flex(&gate) {
        return kernels::swiglu(gate, up);
    }
    activation::silu(gate) * up
}

/// `y + scale * (x A^T) B^T`: what a LoRA adapter adds to a projection (arXiv 2106.09685, section 4.1).
///
/// `y` `[batch, seq, out]`, `x` `[batch, seq, in]`, `a` `[rank, in]`, `b` `[out, rank]` -> `[batch, seq, out]` in the float
/// type of `y`. Gradients flow to all four. On the CPU backend it is one kernel that adds to `y` in place where nothing
/// else holds it.
///
/// # Panics
/// If the shapes do not fit.
///
/// ```
/// use lloco_decoder::{burn::tensor::{Device, Tensor}, low_rank};
///
/// let device = Device::default();
/// let (y, x) = (Tensor::ones([1, 1, 2], &device), Tensor::ones([1, 1, 3], &device));
/// let (a, b) = (Tensor::ones([4, 3], &device), Tensor::ones([2, 4], &device));
/// // 1 + 0.5 * (three ones into each of four, those four into each of two).
/// let sum: Vec<f32> = low_rank(y, x, &a, &b, 0.5).into_data().try_to_vec().unwrap();
/// assert_eq!(sum, [7.0, 7.0]);
/// ```
pub fn low_rank(y: Tensor<3>, x: Tensor<3>, a: &Tensor<2>, b: &Tensor<2>, scale: f64) -> Tensor<3> {
    let (a, b) = (like(a, &x).cast(x.dtype()), like(b, &x).cast(x.dtype()));
    assert_eq!(x.dims()[..2], y.dims()[..2], "low rank: batch and rows of x and y");
    let dtype = y.dtype();
    // Not a clone: the kernel writes over what nobody else holds.
    let y = if x.is_autodiff() && !y.is_autodiff() { Tensor::from_inner(y) } else { y };
    #[cfg(feature = "flex")]
    if kernels::on_flex(&x) && kernels::on_flex(&y) {
        return kernels::low_rank(y, x, a, b, scale);
    }
    // Two-dimensional products read the transposed factors in place; batched ones would copy them.
    let [batch, seq, width] = x.dims();
    let [out, _] = b.dims();
    let narrow = x.reshape([batch * seq, width]).matmul(a.transpose());
    let wide = narrow.mul_scalar(scale).matmul(b.transpose());
    y + wide.reshape([batch, seq, out]).cast(dtype)
}

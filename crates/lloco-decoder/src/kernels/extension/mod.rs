//! The way in from burn tensors: a backend extension for flex, and its gradients for autodiff on flex.

mod decoding;
mod flex;
mod fused;
mod gradients;

pub(crate) use decoding::cached_attention;
pub(crate) use fused::{add_feed_forward, add_linear, normed_triple};

use self::flex::{Heads, Turn, added, attend, dense, losses, numbers, product, second, shape, tensor, together, turn};
use self::gradients::{
    AttentionGrad, DropoutGrad, LinearGrad, LossGrad, LowRankGrad, NormGrad, RotaryGrad, SwigluGrad,
};
use super::cpu::Isa;
use super::pack::PackedLinear;
use super::reuse::Buffer;
use super::rows::each_run;
use crate::{dropout::Mask, ops::Seen};
use burn::backend::{
    Autodiff, Backend, Dispatch, Flex,
    autodiff::{
        checkpoint::strategy::CheckpointStrategy,
        ops::{Backward as _, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{DType, Device, Tensor};
use burn_flex::FlexTensor;
use std::sync::Arc;

/// Whether `x` is an f32 tensor on the flex backend, with autodiff or without: what the functions here take.
pub(crate) fn on_flex<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && super::is_flex(&x.device())
}

/// `x wT`: `x` `[batch, seq, cols_in]` -> `[batch, seq, rows_out]`.
pub(crate) fn linear(x: Tensor<3>, w: &PackedLinear) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::packed_linear(x.into_dispatch(), w.clone()))
}

/// [`linear`] with two weights.
pub(crate) fn linear_pair(x: Tensor<3>, [a, b]: [&PackedLinear; 2]) -> [Tensor<3>; 2] {
    let (a, b) = Dispatch::linear_pair(x.into_dispatch(), a.clone(), b.clone());
    [a, b].map(Tensor::from_dispatch)
}

/// [`linear`] with three weights.
pub(crate) fn linear_triple(x: Tensor<3>, [a, b, c]: [&PackedLinear; 3]) -> [Tensor<3>; 3] {
    let (a, b, c) = Dispatch::linear_triple(x.into_dispatch(), a.clone(), b.clone(), c.clone());
    [a, b, c].map(Tensor::from_dispatch)
}

/// The rows `ids` of `table` `[rows_out, cols_in]`, which must exist: `[ids.len(), cols_in]`.
pub(crate) fn rows(table: &PackedLinear, ids: &[u32], device: &Device) -> Tensor<2> {
    let [_, width] = table.shape();
    let mut out = Buffer::new(ids.len() * width);
    each_run(&mut out, width, |first, rows| {
        for (row, &id) in rows.chunks_exact_mut(width).zip(&ids[first..]) {
            table.row(id as usize, row);
        }
    });
    Tensor::from_data(out.into_data(vec![ids.len(), width]), device)
}

/// Grouped-query attention: `q` `[batch, queries, heads, dim]`, `k` and `v` `[batch, kv_heads, keys, dim]` ->
/// `[batch, queries, heads * dim]`. A query that sees no key gives 0. Keys and values may be any views whose last dimension
/// is dense; they are not copied. Without gradients they may be f16 or bf16.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, seen: Seen) -> Tensor<3> {
    let [batch, queries, heads, dim] = q.dims();
    // The way back is in f32 alone.
    let wide = |x: Tensor<4>| if q.is_autodiff() && x.dtype() != DType::F32 { x.cast(DType::F32) } else { x };
    let (k, v) = (wide(k), wide(v));
    let out = Dispatch::grouped_attention(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), seen);
    Tensor::<4>::from_dispatch(out).reshape([batch, queries, heads * dim])
}

/// `x / sqrt(mean(x^2) + eps) * gamma` over the last dimension. `gamma` is frozen: it gets no gradient.
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, eps: f64) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), gamma.into_dispatch(), eps))
}

/// Rotary embedding of `x` `[batch, seq, heads, dim]`, tables `[positions, dim / 2]`; row `i` of sequence `b` stands at
/// `offset + i - padding[b]`, 0 at least.
pub(crate) fn rope(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>, offset: usize, padding: &[usize]) -> Tensor<4> {
    let (x, cos, sin) = (x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(Dispatch::rotary(x, cos, sin, offset, padding.into()))
}

/// `silu(gate) * up`.
pub(crate) fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// The cross entropy (in nats) of each row of `hidden` `[rows, width]` against its target under the frozen head
/// `[vocabulary, width]`, `[rows]`. The logits of all rows never exist together.
///
/// # Panics
/// If there are not as many targets as rows, or one is not below the vocabulary's size.
pub(crate) fn cross_entropy(hidden: Tensor<2>, head: &PackedLinear, targets: &[u32]) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::head_loss(hidden.into_dispatch(), head.clone(), targets.into()))
}

/// `y + scale * (x aT) bT`: `y` `[.., outputs]`, `x` `[.., inputs]`, `a` `[rank, inputs]`, `b` `[outputs, rank]`. Written
/// over `y` where nobody else holds it.
pub(crate) fn low_rank(y: Tensor<3>, x: Tensor<3>, a: Tensor<2>, b: Tensor<2>, scale: f64) -> Tensor<3> {
    let (y, x, a, b) = (y.into_dispatch(), x.into_dispatch(), a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(Dispatch::low_rank(y, x, a, b, scale))
}

/// `x` without what `mask` drops.
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), mask))
}

/// The kernels as backend operations.
#[backend_extension(Flex, Autodiff)]
trait Kernels: Backend {
    fn packed_linear(x: FloatTensor<Self>, w: PackedLinear) -> FloatTensor<Self>;
    fn linear_pair(x: FloatTensor<Self>, a: PackedLinear, b: PackedLinear) -> (FloatTensor<Self>, FloatTensor<Self>) {
        (Self::packed_linear(x.clone(), a), Self::packed_linear(x, b))
    }
    fn linear_triple(
        x: FloatTensor<Self>,
        a: PackedLinear,
        b: PackedLinear,
        c: PackedLinear,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        (Self::packed_linear(x.clone(), a), Self::packed_linear(x.clone(), b), Self::packed_linear(x, c))
    }
    fn grouped_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        seen: Seen,
    ) -> FloatTensor<Self>;
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        offset: usize,
        padding: Arc<[usize]>,
    ) -> FloatTensor<Self>;
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    fn head_loss(hidden: FloatTensor<Self>, head: PackedLinear, targets: Arc<[u32]>) -> FloatTensor<Self>;
    fn low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;
    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn packed_linear(x: FlexTensor, w: PackedLinear) -> FlexTensor {
        product(&x, &w)
    }

    fn linear_pair(x: FlexTensor, a: PackedLinear, b: PackedLinear) -> (FlexTensor, FlexTensor) {
        together(&x, [&a, &b]).into()
    }

    fn linear_triple(
        x: FlexTensor,
        a: PackedLinear,
        b: PackedLinear,
        c: PackedLinear,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        together(&x, [&a, &b, &c]).into()
    }

    fn grouped_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, seen: Seen) -> FlexTensor {
        attend(&Heads::new(q, k, v, seen), None)
    }

    fn rms_norm(x: FlexTensor, gamma: FlexTensor, eps: f64) -> FlexTensor {
        let (x, gamma) = (dense(x), dense(gamma));
        let mut out = Buffer::new(numbers(&x).len());
        super::norm::rms_norm(Isa::best(), numbers(&x), numbers(&gamma), eps as f32, &mut out);
        tensor(out, shape(&x))
    }

    fn rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, offset: usize, padding: Arc<[usize]>) -> FlexTensor {
        turn(x, &Turn { cos: dense(cos), sin: dense(sin), offset, padding }, 1.0)
    }

    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (gate, up) = (dense(gate), dense(up));
        let mut out = Buffer::new(numbers(&gate).len());
        super::swiglu::swiglu(Isa::best(), numbers(&gate), numbers(&up), &mut out);
        tensor(out, shape(&gate))
    }

    fn head_loss(hidden: FlexTensor, head: PackedLinear, targets: Arc<[u32]>) -> FlexTensor {
        losses(hidden, &head, &targets, None)
    }

    fn low_rank(y: FlexTensor, x: FlexTensor, a: FlexTensor, b: FlexTensor, scale: f64) -> FlexTensor {
        added(y, &dense(x), &dense(a), &second(b), scale).0
    }

    fn dropout(x: FlexTensor, mask: Mask) -> FlexTensor {
        let x = dense(x);
        let mut out = Buffer::new(numbers(&x).len());
        super::dropout::dropout(numbers(&x), mask, &mut out);
        tensor(out, shape(&x))
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn packed_linear(x: FloatTensor<Self>, w: PackedLinear) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let out = Flex::packed_linear(x, w.clone());
        match LinearGrad.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(w, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn grouped_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        seen: Seen,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let heads = Heads::new(q, k, v, seen);
        match AttentionGrad.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let mut lse = vec![0.0; heads.sizes.batch * heads.sizes.heads * heads.sizes.queries];
                let out = attend(&heads, Some(&mut lse));
                prep.finish((heads, out.clone(), lse.into()), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(attend(&heads, None)),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let gamma = gamma.into_primitive();
        let out = Flex::rms_norm(x.clone(), gamma.clone(), eps);
        match NormGrad.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, gamma, eps as f32), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        offset: usize,
        padding: Arc<[usize]>,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let by = Turn { cos: dense(cos.into_primitive()), sin: dense(sin.into_primitive()), offset, padding };
        let out = turn(x, &by, 1.0);
        match RotaryGrad.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(by, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let out = Flex::swiglu(gate.clone(), up.clone());
        match SwigluGrad.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gate, up), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn head_loss(hidden: FloatTensor<Self>, head: PackedLinear, targets: Arc<[u32]>) -> FloatTensor<Self> {
        let (hidden, node) = hidden.into_parts();
        match LossGrad.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                // The gradient of each row's loss comes out beside it; the way back only weights the rows.
                let mut slopes = Buffer::new(hidden.layout().num_elements());
                let shape = shape(&hidden);
                let out = losses(hidden, &head, &targets, Some(&mut slopes));
                prep.finish(tensor(slopes, shape), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(losses(hidden, &head, &targets, None)),
        }
    }
    fn low_rank(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let ((y, y_node), (x, x_node)) = (y.into_parts(), x.into_parts());
        let ((a, a_node), (b, b_node)) = (a.into_parts(), b.into_parts());
        let (x, a, b) = (dense(x), dense(a), second(b));
        let (out, narrow) = added(y, &x, &a, &b, scale);
        match LowRankGrad.prepare::<C>([y_node, x_node, a_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, a, b, scale, narrow), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let out = Flex::dropout(x, mask);
        match DropoutGrad.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(mask, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

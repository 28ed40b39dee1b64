//! The way in from burn tensors: a backend extension for flex, and its gradients for autodiff on flex.

use super::attention::{Inputs, Sizes, View};
use super::attention_grad::{Saved, attention_backward};
use super::cpu::Isa;
use super::pack::PackedLinear;
use super::reuse::Buffer;
use super::rope::Rotation;
use burn::backend::{
    Autodiff, Backend, Dispatch, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{DType, Element, Tensor};
use burn_flex::FlexTensor;
use half::{bf16, f16};
use std::sync::Arc;

/// Whether `x` is an f32 tensor on the flex backend, with autodiff or without: what the functions here take.
pub(crate) fn on_flex<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && super::is_flex(&x.device())
}

/// `x wT`: `x` `[batch, seq, cols_in]` -> `[batch, seq, rows_out]`.
pub(crate) fn linear(x: Tensor<3>, w: &PackedLinear) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::packed_linear(x.into_dispatch(), w.clone()))
}

/// Grouped-query attention: `q` `[batch, queries, heads, dim]`, `k` and `v` `[batch, kv_heads, keys, dim]` ->
/// `[batch, queries, heads * dim]`. Query `i` of row `b` sees keys `padding[b] ..= i + keys - queries` if `causal`, else
/// all from `padding[b]` on; one that sees none gives 0. Keys and values may be any views whose last dimension is dense;
/// they are not copied. Without gradients they may be f16 or bf16.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, padding: &[usize], causal: bool) -> Tensor<3> {
    let [batch, queries, heads, dim] = q.dims();
    let padding = padding.into();
    // The way back is in f32 alone.
    let wide = |x: Tensor<4>| if q.is_autodiff() && x.dtype() != DType::F32 { x.cast(DType::F32) } else { x };
    let (k, v) = (wide(k), wide(v));
    let out = Dispatch::grouped_attention(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), padding, causal);
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

/// The kernels as backend operations.
#[backend_extension(Flex, Autodiff)]
trait Kernels: Backend {
    fn packed_linear(x: FloatTensor<Self>, w: PackedLinear) -> FloatTensor<Self>;
    fn grouped_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        padding: Arc<[usize]>,
        causal: bool,
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
}

impl Kernels for Flex {
    fn packed_linear(x: FlexTensor, w: PackedLinear) -> FlexTensor {
        product(&x, &w)
    }

    fn grouped_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        padding: Arc<[usize]>,
        causal: bool,
    ) -> FlexTensor {
        attend(&Heads::new(q, k, v, padding, causal), None)
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
        padding: Arc<[usize]>,
        causal: bool,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let heads = Heads::new(q, k, v, padding, causal);
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
}

#[derive(Debug)]
struct LinearGrad;

impl Backward<Flex, 1> for LinearGrad {
    type State = PackedLinear;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, product(&grad, ops.state.transposed()));
        }
    }
}

#[derive(Debug)]
struct AttentionGrad;

impl Backward<Flex, 3> for AttentionGrad {
    /// Inputs, output, and the logarithms of the rows' sums of exponentials.
    type State = (Heads, FlexTensor, Arc<[f32]>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (heads, out, lse) = &ops.state;
        let saved = Saved { out: numbers(out), lse, grad: numbers(&grad) };
        let found = attention_backward(Isa::best(), heads.inputs::<f32>(), saved);
        let shapes = [shape(&heads.q), shape(&heads.k), shape(&heads.v)];
        for ((node, grad), shape) in ops.parents.into_iter().zip([found.q, found.k, found.v]).zip(shapes) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(grad, shape));
            }
        }
    }
}

#[derive(Debug)]
struct NormGrad;

impl Backward<Flex, 1> for NormGrad {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (x, gamma, eps) = ops.state;
        let (x, gamma) = (dense(x), dense(gamma));
        if let [Some(node)] = ops.parents {
            let mut out = Buffer::new(numbers(&x).len());
            super::norm::rms_norm_backward(Isa::best(), numbers(&x), numbers(&gamma), eps, numbers(&grad), &mut out);
            grads.register::<Flex>(node.id, tensor(out, shape(&x)));
        }
    }
}

#[derive(Debug)]
struct RotaryGrad;

impl Backward<Flex, 1> for RotaryGrad {
    type State = Turn;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, turn(grad, &ops.state, -1.0));
        }
    }
}

#[derive(Debug)]
struct SwigluGrad;

impl Backward<Flex, 2> for SwigluGrad {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (gate, up) = (dense(ops.state.0), dense(ops.state.1));
        let [mut gate_grad, mut up_grad] = [0; 2].map(|_| Buffer::new(numbers(&gate).len()));
        super::swiglu::swiglu_backward(
            Isa::best(),
            numbers(&gate),
            numbers(&up),
            numbers(&grad),
            &mut gate_grad,
            &mut up_grad,
        );
        for (node, grad) in ops.parents.into_iter().zip([gate_grad, up_grad]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(grad, shape(&gate)));
            }
        }
    }
}

#[derive(Debug)]
struct LossGrad;

impl Backward<Flex, 1> for LossGrad {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        if let [Some(node)] = ops.parents {
            let shape = shape(&ops.state);
            let mut out = Buffer::new(numbers(&ops.state).len());
            out.copy_from_slice(numbers(&ops.state));
            for (row, weight) in out.chunks_exact_mut(shape[1].max(1)).zip(numbers(&grad)) {
                row.iter_mut().for_each(|x| *x *= weight);
            }
            grads.register::<Flex>(node.id, tensor(out, shape));
        }
    }
}

/// The losses of the rows of `hidden`, and their gradients.
fn losses(hidden: FlexTensor, head: &PackedLinear, targets: &[u32], slopes: Option<&mut [f32]>) -> FlexTensor {
    let hidden = dense(hidden);
    assert_eq!(shape(&hidden), [targets.len(), head.shape()[1]], "loss: {} targets, {head:?}", targets.len());
    let mut out = Buffer::new(targets.len());
    super::loss::cross_entropy(Isa::best(), numbers(&hidden), head, targets, &mut out, slopes);
    tensor(out, vec![targets.len()])
}

/// `x` `[.., cols_in]` times the transpose of `w`.
fn product(x: &FlexTensor, w: &PackedLinear) -> FlexTensor {
    let x = dense(x.clone());
    let [rows_out, cols_in] = w.shape();
    let mut shape = shape(&x);
    let width = shape.last_mut().expect("linear: x has no dimension");
    assert_eq!(*width, cols_in, "linear: x is {width} wide, the weight is [{rows_out}, {cols_in}]");
    *width = rows_out;
    let mut out = Buffer::new(shape.iter().product());
    super::linear::linear(Isa::best(), numbers(&x), w, &mut out);
    tensor(out, shape)
}

/// The tables and positions of a rotation.
#[derive(Clone, Debug)]
struct Turn {
    cos: FlexTensor,
    sin: FlexTensor,
    offset: usize,
    padding: Arc<[usize]>,
}

/// Rotates `x` `[batch, seq, heads, dim]`.
fn turn(x: FlexTensor, by: &Turn, sense: f32) -> FlexTensor {
    let x = dense(x);
    let &[_, seq, heads, dim] = shape(&x).as_slice() else {
        panic!("rope: expected [batch, seq, heads, dim], found {:?}", shape(&x));
    };
    let (cos, sin) = (numbers(&by.cos), numbers(&by.sin));
    let rotation = Rotation { cos, sin, seq, heads, dim, offset: by.offset, padding: &by.padding, sense };
    let mut out = Buffer::new(numbers(&x).len());
    super::rope::rope(Isa::best(), numbers(&x), rotation, &mut out);
    tensor(out, shape(&x))
}

/// Queries, keys and values whose last dimensions are dense.
#[derive(Clone, Debug)]
struct Heads {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    padding: Arc<[usize]>,
    sizes: Sizes,
}

impl Heads {
    fn new(q: FlexTensor, k: FlexTensor, v: FlexTensor, padding: Arc<[usize]>, causal: bool) -> Self {
        let sizes = match (shape(&q).as_slice(), shape(&k).as_slice()) {
            (&[batch, queries, heads, dim], &[b, kv_heads, keys, d])
                if (b, d) == (batch, dim) && shape(&k) == shape(&v) =>
            {
                Sizes { batch, heads, kv_heads, queries, keys, dim, causal }
            }
            (q, k) => panic!("attention: q {q:?}, k {k:?}, v {:?} do not fit", shape(&v)),
        };
        assert!(sizes.kv_heads > 0 && sizes.heads % sizes.kv_heads == 0, "attention: {sizes:?}");
        Self { q: rows(q), k: rows(k), v: rows(v), padding, sizes }
    }

    fn inputs<T: Element + bytemuck::Pod>(&self) -> Inputs<'_, T> {
        // Queries come as [batch, row, head, dim].
        let [batch, row, head] = strides(&self.q);
        let q = View { strides: [batch, head, row], ..self.view(&self.q) };
        Inputs { sizes: self.sizes, q, k: self.view(&self.k), v: self.view(&self.v), padding: &self.padding }
    }

    fn view<'a, T: Element + bytemuck::Pod>(&self, x: &'a FlexTensor) -> View<'a, T> {
        let offset = x.layout().start_offset();
        View { data: x.storage::<T>(), offset, strides: strides(x), dim: self.sizes.dim }
    }
}

fn attend(heads: &Heads, lse: Option<&mut [f32]>) -> FlexTensor {
    let shape = shape(&heads.q);
    let mut out = Buffer::new(shape.iter().product());
    let isa = Isa::best();
    match heads.k.dtype() {
        DType::F16 => super::attention::attention(isa, heads.inputs::<f16>(), &mut out, lse),
        DType::BF16 => super::attention::attention(isa, heads.inputs::<bf16>(), &mut out, lse),
        _ => super::attention::attention(isa, heads.inputs::<f32>(), &mut out, lse),
    }
    tensor(out, shape)
}

/// `x` itself if its last dimension is dense and no stride negative, else a dense copy.
fn rows(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    let width = shape(&x).last().copied().unwrap_or(1);
    let usable = strides.iter().all(|&s| s >= 0) && (width == 1 || strides.last() == Some(&1));
    if usable { x } else { x.to_contiguous() }
}

/// Strides of the first three dimensions of what [`rows`] returned.
fn strides(x: &FlexTensor) -> [usize; 3] {
    std::array::from_fn(|i| x.layout().strides()[i] as usize)
}

/// `x` itself if dense, else a dense copy.
fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The numbers of a dense tensor, in order.
fn numbers(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &whole(x)[start..start + x.layout().num_elements()]
}

/// All numbers of the storage behind a tensor.
fn whole(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

fn shape(x: &FlexTensor) -> Vec<usize> {
    x.layout().shape().to_vec()
}

fn tensor(numbers: Buffer, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(numbers.into_data(shape))
}

//! The way back through each operation: what `autodiff` runs on flex tensors.

use super::super::attention::{Saved, attention_backward, packed};
use super::super::cpu::Isa;
use super::super::pack::PackedLinear;
use super::super::reuse::Buffer;
use super::super::{norm, swiglu};
use super::Kernels as _;
use super::flex::{Heads, Turn, dense, factors, numbers, product, shape, tensor, turn};
use crate::dropout::Mask;
use burn::backend::Flex;
use burn::backend::autodiff::{
    checkpoint::base::Checkpointer,
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn_flex::FlexTensor;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct LinearGrad;

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
pub(super) struct AttentionGrad;

impl Backward<Flex, 3> for AttentionGrad {
    /// Inputs, output, and the logarithms of the rows' sums of exponentials.
    type State = (Heads, FlexTensor, Arc<[f32]>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (heads, out, lse) = &ops.state;
        let saved = Saved { out: numbers(out), lse, grad: numbers(&grad) };
        let (isa, inputs) = (Isa::best(), heads.inputs::<f32>());
        let found = match &*heads.seen.pieces {
            [] => attention_backward(isa, inputs, saved),
            pieces => packed::attention_backward(isa, inputs, pieces, saved),
        };
        let shapes = [shape(&heads.q), shape(&heads.k), shape(&heads.v)];
        for ((node, grad), shape) in ops.parents.into_iter().zip([found.q, found.k, found.v]).zip(shapes) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(grad, shape));
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct NormGrad;

impl Backward<Flex, 1> for NormGrad {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (x, gamma, eps) = ops.state;
        let (x, gamma) = (dense(x), dense(gamma));
        if let [Some(node)] = ops.parents {
            let mut out = Buffer::new(numbers(&x).len());
            norm::rms_norm_backward(Isa::best(), numbers(&x), numbers(&gamma), eps, numbers(&grad), &mut out);
            grads.register::<Flex>(node.id, tensor(out, shape(&x)));
        }
    }
}

#[derive(Debug)]
pub(super) struct RotaryGrad;

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
pub(super) struct SwigluGrad;

impl Backward<Flex, 2> for SwigluGrad {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (gate, up) = (dense(ops.state.0), dense(ops.state.1));
        let [mut gate_grad, mut up_grad] = [0; 2].map(|_| Buffer::new(numbers(&gate).len()));
        swiglu::swiglu_backward(
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
pub(super) struct LossGrad;

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

#[derive(Debug)]
pub(super) struct LowRankGrad;

impl Backward<Flex, 4> for LowRankGrad {
    /// x, both factors, the scale, and `scale * x aT`.
    type State = (FlexTensor, FlexTensor, FlexTensor, f64, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let (x, a, b, scale, narrow) = &ops.state;
        let [y, parents @ ..] = ops.parents;
        let wanted = parents.each_ref().map(Option::is_some);
        let found = factors(a, b, *scale).backward(Isa::best(), numbers(x), numbers(narrow), numbers(&grad), wanted);
        if let Some(node) = y {
            grads.register::<Flex>(node.id, grad);
        }
        for ((node, found), like) in parents.into_iter().zip(found).zip([x, a, b]) {
            if let (Some(node), Some(found)) = (node, found) {
                grads.register::<Flex>(node.id, tensor(found, shape(like)));
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct DropoutGrad;

impl Backward<Flex, 1> for DropoutGrad {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, Flex::dropout(grad, ops.state));
        }
    }
}

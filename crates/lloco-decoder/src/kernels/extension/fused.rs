//! What a layer does around its products, in one operation with them: without gradients.

use super::super::cpu::Isa;
use super::super::norm::Norm;
use super::super::pack::PackedLinear;
use super::super::products;
use super::flex::{dense, normed_together, numbers, shape, with_added};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

/// The products of three weights with `x` `[batch, seq, cols_in]` behind an RMSNorm. Without gradients.
pub(crate) fn normed_triple(x: Tensor<3>, gamma: Tensor<1>, eps: f64, [a, b, c]: [&PackedLinear; 3]) -> [Tensor<3>; 3] {
    let (x, gamma) = (x.into_dispatch(), gamma.into_dispatch());
    let (a, b, c) = Dispatch::normed_triple(x, gamma, eps, a.clone(), b.clone(), c.clone());
    [a, b, c].map(Tensor::from_dispatch)
}

/// `y + x wT`, in the memory of `y` `[batch, seq, rows_out]` where nothing else holds it. Without gradients.
pub(crate) fn add_linear(y: Tensor<3>, x: Tensor<3>, w: &PackedLinear) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::add_linear(y.into_dispatch(), x.into_dispatch(), w.clone()))
}

/// `x + down(silu(gate(n)) * up(n))` with `n` the RMSNorm of `x` `[batch, seq, hidden]`, in the memory of `x` where nothing
/// else holds it. Without gradients.
pub(crate) fn add_feed_forward(
    x: Tensor<3>,
    gamma: Tensor<1>,
    eps: f64,
    [gate, up, down]: [&PackedLinear; 3],
) -> Tensor<3> {
    let (x, gamma) = (x.into_dispatch(), gamma.into_dispatch());
    Tensor::from_dispatch(Dispatch::add_feed_forward(x, gamma, eps, gate.clone(), up.clone(), down.clone()))
}

/// They as backend operations.
#[backend_extension(Flex)]
trait Fused: Backend {
    fn normed_triple(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        eps: f64,
        a: PackedLinear,
        b: PackedLinear,
        c: PackedLinear,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    fn add_linear(y: FloatTensor<Self>, x: FloatTensor<Self>, w: PackedLinear) -> FloatTensor<Self>;
    fn add_feed_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        eps: f64,
        gate: PackedLinear,
        up: PackedLinear,
        down: PackedLinear,
    ) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn normed_triple(
        x: FlexTensor,
        gamma: FlexTensor,
        eps: f64,
        a: PackedLinear,
        b: PackedLinear,
        c: PackedLinear,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        normed_together(&x, &dense(gamma), eps, [&a, &b, &c]).into()
    }

    fn add_linear(y: FlexTensor, x: FlexTensor, w: PackedLinear) -> FlexTensor {
        let x = dense(x);
        let (mut expected, [rows_out, cols_in]) = (shape(&x), w.shape());
        assert_eq!(expected.pop(), Some(cols_in), "linear: x {:?}, {w:?}", shape(&x));
        expected.push(rows_out);
        assert_eq!(shape(&y), expected, "linear: x {:?}, {w:?}", shape(&x));
        with_added(y, |y| products::add_linear(Isa::best(), numbers(&x), &w, y))
    }

    fn add_feed_forward(
        x: FlexTensor,
        gamma: FlexTensor,
        eps: f64,
        gate: PackedLinear,
        up: PackedLinear,
        down: PackedLinear,
    ) -> FlexTensor {
        let gamma = dense(gamma);
        assert_eq!(shape(&x).last().copied(), Some(gate.shape()[1]), "feed forward: x {:?}, {gate:?}", shape(&x));
        let norm = Norm { gamma: numbers(&gamma), eps: eps as f32 };
        with_added(x, |x| products::add_feed_forward(Isa::best(), x, norm, [&gate, &up, &down]))
    }
}

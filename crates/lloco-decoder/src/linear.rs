//! A frozen linear projection.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "flex")]
use crate::kernels::{self, PackedLinear};
use crate::{Checkpoint, Result, WeightType, ops::like, weight::Weight};

/// `y = x W^T + b`, with `W` `[out, in]` as in the checkpoint.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// Reads `{name}.weight` `[out, in]` and, if `bias`, `{name}.bias` `[out]`.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
        bias: bool,
        weights: WeightType,
        device: &Device,
    ) -> Result<Self> {
        let weight = Weight::load(checkpoint, &format!("{name}.weight"), shape, weights, device)?;
        let bias = match bias {
            true => Some(Tensor::from_data(checkpoint.tensor(&format!("{name}.bias"), &shape[..1])?, device)),
            false => None,
        };
        Ok(Self { weight, bias })
    }

    /// The matrix.
    pub(crate) fn weight(&self) -> &Weight {
        &self.weight
    }

    /// The packed weight, if operations on `x` and it may be computed together: on the CPU's kernels, without gradients.
    /// The bias is still to be [added](Self::biased).
    #[cfg(feature = "flex")]
    pub(crate) fn packed(&self, x: &Tensor<3>) -> Option<&PackedLinear> {
        match &self.weight {
            Weight::Packed(weight) if kernels::on_flex(x) && !x.is_autodiff() => Some(weight),
            _ => None,
        }
    }

    /// [`packed`](Self::packed), if there is no bias.
    #[cfg(feature = "flex")]
    pub(crate) fn unbiased(&self, x: &Tensor<3>) -> Option<&PackedLinear> {
        self.packed(x).filter(|_| self.bias.is_none())
    }

    /// `x` `[batch, seq, in]` -> `[batch, seq, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.biased(self.weight.product(x))
    }

    /// Two projections of the same rows, computed together where that is faster.
    pub(crate) fn pair([a, b]: [&Self; 2], x: Tensor<3>) -> [Tensor<3>; 2] {
        let [y, z] = Weight::pair([&a.weight, &b.weight], x);
        [a.biased(y), b.biased(z)]
    }

    /// As [`pair`](Self::pair), three of them.
    pub(crate) fn triple([a, b, c]: [&Self; 3], x: Tensor<3>) -> [Tensor<3>; 3] {
        let [q, r, s] = Weight::triple([&a.weight, &b.weight, &c.weight], x);
        [a.biased(q), b.biased(r), c.biased(s)]
    }

    /// `y` and the bias, if there is one.
    pub(crate) fn biased(&self, y: Tensor<3>) -> Tensor<3> {
        match &self.bias {
            Some(bias) => {
                let bias = like(bias, &y).cast(y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }
}

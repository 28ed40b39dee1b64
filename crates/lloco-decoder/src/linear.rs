//! A frozen linear projection.

use burn::tensor::{Device, Tensor};

use crate::{Checkpoint, LinearAdapter, Result, Site, WeightType, ops::like, weight::Weight};

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

    /// `x` `[batch, seq, in]` -> `[batch, seq, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.weight.product(x);
        match &self.bias {
            Some(bias) => {
                let bias = like(bias, &y).cast(y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }

    /// [`forward`](Self::forward) plus what the adapter adds at `site`.
    pub(crate) fn adapted(&self, x: Tensor<3>, site: Site, adapter: &dyn LinearAdapter) -> Tensor<3> {
        adapter.apply(site, &x, self.forward(x.clone()))
    }
}

//! A frozen linear projection.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

#[cfg(feature = "flex")]
use crate::kernels::{self, PackedLinear};
use crate::{
    Checkpoint, LinearAdapter, Result, Site, WeightType,
    ops::{self, like},
};

/// `y = x W^T + b`, with `W` `[out, in]` as in the checkpoint.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Option<Tensor<1>>,
}

/// Where the numbers of a weight are.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one a projection")]
enum Weight {
    /// A plain tensor `[out, in]` on any device.
    Dense(Tensor<2>),
    /// Packed for this crate's CPU kernels.
    #[cfg(feature = "flex")]
    Packed(PackedLinear),
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
        let values = checkpoint.tensor(&format!("{name}.weight"), &shape)?;
        let bias = match bias {
            true => Some(Tensor::from_data(checkpoint.tensor(&format!("{name}.bias"), &shape[..1])?, device)),
            false => None,
        };
        Ok(Self { weight: Weight::new(values, shape, weights, device), bias })
    }

    /// A projection of given weight, `[out, in]` in f32.
    pub(crate) fn from_data(values: TensorData, shape: [usize; 2], weights: WeightType, device: &Device) -> Self {
        Self { weight: Weight::new(values, shape, weights, device), bias: None }
    }

    /// `x` `[batch, seq, in]` -> `[batch, seq, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = match &self.weight {
            Weight::Dense(weight) => ops::linear(x, weight),
            #[cfg(feature = "flex")]
            Weight::Packed(weight) => kernels::linear(x, weight),
        };
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
        match adapter.delta(site, &x) {
            Some(delta) => self.forward(x) + delta,
            None => self.forward(x),
        }
    }
}

impl Weight {
    fn new(values: TensorData, [rows, columns]: [usize; 2], weights: WeightType, device: &Device) -> Self {
        #[cfg(feature = "flex")]
        if kernels::is_flex(device)
            && let Ok(values) = values.as_slice::<f32>()
        {
            return Self::Packed(match weights {
                WeightType::Bf16 => PackedLinear::bf16(rows, columns, values),
                _ => PackedLinear::f32(rows, columns, values),
            });
        }
        let _ = (rows, columns);
        let weight = Tensor::<2>::from_data(values, device);
        Self::Dense(match weights {
            WeightType::Bf16 => weight.cast(FloatDType::BF16),
            _ => weight,
        })
    }
}

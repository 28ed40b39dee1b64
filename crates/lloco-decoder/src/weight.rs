//! A frozen matrix, in the type that was asked for.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData, activation::log_softmax};

use crate::{Checkpoint, Error, Result, WeightType, ops};
#[cfg(feature = "flex")]
use crate::{
    gguf::BlockType,
    kernels::{self, Inputs, PackedLinear},
};

/// `[out, in]`, as in the checkpoint: a projection, the output head, or the embedding table. A clone shares it.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a model has one a projection")]
pub(crate) enum Weight {
    /// A plain tensor on any device.
    Dense(Tensor<2>),
    /// Packed for this crate's CPU kernels.
    #[cfg(feature = "flex")]
    Packed(PackedLinear),
}

impl Weight {
    /// Reads the tensor `name` `[out, in]`.
    ///
    /// On `flex` with fewer than 16 bits, and with [`WeightType::Auto`], GGUF blocks stay blocks, if their scales fit.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
        weights: WeightType,
        device: &Device,
    ) -> Result<Self> {
        let weight = Self::read(checkpoint, name, shape, weights, device);
        checkpoint.forget();
        weight
    }

    fn read(
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
        weights: WeightType,
        device: &Device,
    ) -> Result<Self> {
        #[cfg(feature = "flex")]
        if kernels::is_flex(device)
            && let Some((kind, bytes)) = checkpoint.blocks(name, &shape)?
            && keeps(weights, kind)
            && let inputs = if weights == WeightType::Q4 { Inputs::Coarse } else { Inputs::Fine }
            && let Some(packed) = PackedLinear::gguf(shape[0], shape[1], kind, &bytes, inputs)
        {
            return Ok(Self::Packed(packed));
        }
        Self::new(checkpoint.values(name, &shape)?, shape, weights, device)?.ok_or_else(|| Error::Malformed {
            path: checkpoint.path().to_path_buf(),
            detail: format!(
                "tensor `{name}` holds a number that is not finite or too large for {weights:?}; load it as F32 to look at it"
            ),
        })
    }

    /// Holds `values`; `None` if one does not fit the type.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a type that the device does not compute with.
    pub(crate) fn new(
        values: Vec<f32>,
        shape: [usize; 2],
        weights: WeightType,
        device: &Device,
    ) -> Result<Option<Self>> {
        #[cfg(feature = "flex")]
        if kernels::is_flex(device) {
            let [rows, columns] = shape;
            let packed = match weights {
                WeightType::F32 => Some(PackedLinear::f32(rows, columns, &values)),
                WeightType::Auto | WeightType::Bf16 => Some(PackedLinear::bf16(rows, columns, &values)),
                WeightType::Int8 => PackedLinear::int8(rows, columns, &values),
                WeightType::Q4 => PackedLinear::q4(rows, columns, &values, Inputs::Coarse),
            };
            return Ok(packed.map(Self::Packed));
        }
        let weight = Tensor::<2>::from_data(TensorData::new(values, shape), device);
        match weights {
            WeightType::F32 => Ok(Some(Self::Dense(weight))),
            WeightType::Auto | WeightType::Bf16 => Ok(Some(Self::Dense(weight.cast(FloatDType::BF16)))),
            WeightType::Int8 | WeightType::Q4 => Err(Error::InvalidSetting {
                field: "weights",
                value: format!("{weights:?}"),
                expected: "Auto, F32 or Bf16 on this device; Int8 and Q4 are for the CPU backend flex",
            }),
        }
    }

    /// How many outputs there are.
    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.dims()[0],
            #[cfg(feature = "flex")]
            Self::Packed(weight) => weight.shape()[0],
        }
    }

    /// Bytes of the numbers.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.shape().num_elements() * weight.dtype().size(),
            #[cfg(feature = "flex")]
            Self::Packed(weight) => weight.bytes(),
        }
    }

    /// Other numbers `[out, in]`, held as these are.
    pub(crate) fn alike(&self, values: Vec<f32>, shape: [usize; 2]) -> Option<Self> {
        match self {
            Self::Dense(weight) => {
                let values = Tensor::<2>::from_data(TensorData::new(values, shape), &weight.device());
                Some(Self::Dense(values.cast(weight.dtype())))
            }
            #[cfg(feature = "flex")]
            Self::Packed(weight) => weight.alike(shape[0], shape[1], &values).map(Self::Packed),
        }
    }

    /// `x W^T`: `x` `[batch, seq, in]` -> `[batch, seq, out]`.
    pub(crate) fn product(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Dense(weight) => ops::linear(x, weight),
            #[cfg(feature = "flex")]
            Self::Packed(weight) => kernels::linear(x, weight),
        }
    }

    /// [`product`](Self::product) with two weights. On `flex`, few rows meet both at once.
    pub(crate) fn pair([a, b]: [&Self; 2], x: Tensor<3>) -> [Tensor<3>; 2] {
        #[cfg(feature = "flex")]
        if let (Self::Packed(a), Self::Packed(b)) = (a, b) {
            return kernels::linear_pair(x, [a, b]);
        }
        [a.product(x.clone()), b.product(x)]
    }

    /// As [`pair`](Self::pair), with three.
    pub(crate) fn triple([a, b, c]: [&Self; 3], x: Tensor<3>) -> [Tensor<3>; 3] {
        #[cfg(feature = "flex")]
        if let (Self::Packed(a), Self::Packed(b), Self::Packed(c)) = (a, b, c) {
            return kernels::linear_triple(x, [a, b, c]);
        }
        [a.product(x.clone()), b.product(x.clone()), c.product(x)]
    }

    /// The cross entropy (in nats) of each row of `hidden` `[rows, in]` against its target, an index of an output:
    /// `[rows]`. On `flex` the scores of all rows never exist together.
    pub(crate) fn losses(&self, hidden: Tensor<2>, targets: &[u32]) -> Tensor<1> {
        #[cfg(feature = "flex")]
        if let Self::Packed(weight) = self {
            return kernels::cross_entropy(hidden, weight, targets);
        }
        let rows = targets.len();
        let targets: Vec<i64> = targets.iter().map(|&id| i64::from(id)).collect();
        let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [rows, 1]), &hidden.device().inner());
        let scores: Tensor<2> = self.product(hidden.unsqueeze()).squeeze_dim(0);
        let scores = log_softmax(scores.cast(FloatDType::F32), 1);
        scores.gather(1, targets).neg().squeeze_dim(1)
    }

    /// The rows `ids`, which must exist: `[ids.len(), in]`.
    pub(crate) fn rows(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        match self {
            Self::Dense(weight) => {
                let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
                let len = ids.len();
                weight.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(ids, [len]), device))
            }
            #[cfg(feature = "flex")]
            Self::Packed(weight) => kernels::rows(weight, ids, device),
        }
    }
}

/// Whether blocks of `kind` serve, as the kernels hold them, where `weights` is asked for.
#[cfg(feature = "flex")]
fn keeps(weights: WeightType, kind: BlockType) -> bool {
    match kind {
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K => {
            matches!(weights, WeightType::Auto | WeightType::Int8 | WeightType::Q4)
        }
        BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 | BlockType::Q5K | BlockType::Q6K => {
            matches!(weights, WeightType::Auto | WeightType::Int8)
        }
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => false,
    }
}

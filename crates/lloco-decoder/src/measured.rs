//! The kernels that benches time alone. Not part of the public interface: it may change at any time.

use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::{Decoder, Error, Result, WeightType, ops, weight::Weight};

/// How a decoder holds what a decoded token has to read.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Bytes of the projections of all layers and of the output head.
    pub weights: usize,
    /// The type of the layers' weights; of the first matrix, where they differ.
    pub kind: WeightType,
    /// Bytes of one number in a KV cache.
    pub cached: usize,
}

impl Held {
    /// What `decoder` holds, before any training has made transposed copies.
    pub fn by(decoder: &Decoder) -> Self {
        Self {
            weights: decoder.matrices().map(Weight::bytes).sum(),
            kind: decoder.matrices().next().map_or(WeightType::F32, Weight::kind),
            cached: DType::from(decoder.cache_dtype()).size(),
        }
    }
}

/// A frozen projection of random weights.
#[derive(Debug)]
pub struct Projection(Weight);

impl Projection {
    /// Weights `[rows, columns]`, held as `weights`.
    ///
    /// # Errors
    /// For weights that the device does not compute with.
    pub fn random(rows: usize, columns: usize, weights: WeightType, device: &Device) -> Result<Self> {
        let values = Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 0.02), device).into_data();
        let weight = Weight::new(values.iter::<f32>().collect(), [rows, columns], weights, device)?;
        let mismatch = || Error::Mismatch { what: "random weights", expected: "finite".into(), found: "others".into() };
        Ok(Self(weight.ok_or_else(mismatch)?))
    }

    /// `x` `[batch, seq, columns]` -> `[batch, seq, rows]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.0.product(x)
    }
}

/// Causal grouped-query attention: `q` `[batch, seq_q, heads, dim]`, `k` and `v` `[batch, kv_heads, seq_k, dim]` ->
/// `[batch, seq_q, heads * dim]`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
    ops::attention(q, k, v, &[])
}

//! The kernels that benches time alone. Not part of the public interface: it may change at any time.

use burn::tensor::{Device, Distribution, Tensor};

use crate::{Error, Result, WeightType, ops, weight::Weight};

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

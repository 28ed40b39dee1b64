//! The kernels that benches time alone. Not part of the public interface: it may change at any time.

use burn::tensor::{Device, Distribution, Tensor};

use crate::{WeightType, linear::Linear, ops};

/// A frozen projection of random weights.
#[derive(Debug)]
pub struct Projection(Linear);

impl Projection {
    /// Weights `[rows, columns]`, held as `weights`.
    pub fn random(rows: usize, columns: usize, weights: WeightType, device: &Device) -> Self {
        let values = Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 0.02), device).into_data();
        Self(Linear::from_data(values, [rows, columns], weights, device))
    }

    /// `x` `[batch, seq, columns]` -> `[batch, seq, rows]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.0.forward(x)
    }
}

/// Causal grouped-query attention: `q` `[batch, seq_q, heads, dim]`, `k` and `v` `[batch, kv_heads, seq_k, dim]` ->
/// `[batch, seq_q, heads * dim]`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
    ops::attention(q, k, v, &[])
}

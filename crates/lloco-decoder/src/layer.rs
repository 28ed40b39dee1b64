//! One transformer layer: attention and MLP, each behind an RMSNorm and with a residual.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "flex")]
use crate::kernels;
use crate::{
    Checkpoint, DecoderConfig, Projection, Result, Site, WeightType,
    attention::{Attention, Context},
    cache::AtLayer,
    linear::Linear,
    norm::Norm,
    ops,
};

/// A transformer layer.
#[derive(Debug)]
pub(crate) struct Layer {
    attention: Attention,
    mlp: Mlp,
}

/// `x + down(silu(gate(n)) * up(n))` with `n` the norm of `x`.
#[derive(Debug)]
struct Mlp {
    layer: usize,
    norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        config: &DecoderConfig,
        layer: usize,
        weights: WeightType,
        device: &Device,
    ) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let norm = format!("model.layers.{layer}.post_attention_layernorm.weight");
        let linear = |projection, shape| {
            Linear::load(checkpoint, &Site { layer, projection }.path(), shape, config.mlp_bias, weights, device)
        };
        Ok(Self {
            attention: Attention::load(checkpoint, config, layer, weights, device)?,
            mlp: Mlp {
                layer,
                norm: Norm::load(checkpoint, &norm, hidden, config.rms_norm_eps, device)?,
                gate: linear(Projection::Gate, [inner, hidden])?,
                up: linear(Projection::Up, [inner, hidden])?,
                down: linear(Projection::Down, [hidden, inner])?,
            },
        })
    }

    /// The seven projections.
    pub(crate) fn projections(&self) -> impl Iterator<Item = &Linear> {
        self.attention.projections().into_iter().chain([&self.mlp.gate, &self.mlp.up, &self.mlp.down])
    }

    /// `x` `[batch, seq, hidden]` -> the newest `context.rows` rows, `[batch, rows, hidden]`.
    ///
    /// # Errors
    /// When a spilled cache cannot be read.
    pub(crate) fn forward(&self, x: Tensor<3>, context: &Context, cache: Option<AtLayer<'_>>) -> Result<Tensor<3>> {
        Ok(self.mlp.forward(self.attention.forward(x, context, cache)?, context))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>, context: &Context) -> Tensor<3> {
        let site = |projection| Site { layer: self.layer, projection };
        #[cfg(feature = "flex")]
        if ![Projection::Gate, Projection::Up, Projection::Down].iter().any(|p| context.adapter.adapts(site(*p)))
            && let (Some(gate), Some(up), Some(down)) =
                (self.gate.unbiased(&x), self.up.unbiased(&x), self.down.unbiased(&x))
        {
            return kernels::add_feed_forward(x, self.norm.gamma.clone(), self.norm.eps, [gate, up, down]);
        }
        let normed = self.norm.forward(x.clone());
        let adapt = |projection, x: &Tensor<3>, y| context.adapter.apply(site(projection), x, y);
        let [gate, up] = Linear::pair([&self.gate, &self.up], normed.clone());
        let gate = adapt(Projection::Gate, &normed, gate);
        let up = adapt(Projection::Up, &normed, up);
        let inner = ops::swiglu(gate, up);
        x + adapt(Projection::Down, &inner, self.down.forward(inner.clone()))
    }
}

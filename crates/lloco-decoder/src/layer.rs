//! One transformer layer: attention and MLP, each behind an RMSNorm and with a residual.

use burn::tensor::{Device, Tensor, s};

use crate::{
    Checkpoint, DecoderConfig, Projection, Result, Site, WeightType,
    attention::{Attention, Context},
    cache::LayerCache,
    linear::Linear,
    ops,
};

/// A transformer layer.
#[derive(Debug)]
pub(crate) struct Layer {
    attention_norm: Tensor<1>,
    attention: Attention,
    mlp_norm: Tensor<1>,
    mlp: Mlp,
    eps: f64,
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug)]
struct Mlp {
    layer: usize,
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
        let norm = |name: &str| -> Result<Tensor<1>> {
            let name = format!("model.layers.{layer}.{name}.weight");
            Ok(Tensor::from_data(checkpoint.tensor(&name, &[hidden])?, device))
        };
        let linear = |projection, shape| {
            Linear::load(checkpoint, &Site { layer, projection }.path(), shape, config.mlp_bias, weights, device)
        };
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            attention: Attention::load(checkpoint, config, layer, weights, device)?,
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp {
                layer,
                gate: linear(Projection::Gate, [inner, hidden])?,
                up: linear(Projection::Up, [inner, hidden])?,
                down: linear(Projection::Down, [hidden, inner])?,
            },
            eps: config.rms_norm_eps,
        })
    }

    /// The seven projections.
    pub(crate) fn projections(&self) -> impl Iterator<Item = &Linear> {
        self.attention.projections().into_iter().chain([&self.mlp.gate, &self.mlp.up, &self.mlp.down])
    }

    /// `x` `[batch, seq, hidden]` -> the newest `context.rows` rows, `[batch, rows, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<3>, context: &Context, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let first = x.dims()[1] - context.rows;
        let normed = ops::rms_norm(x.clone(), &self.attention_norm, self.eps);
        let attended = self.attention.forward(normed, context, cache);
        let x = if first > 0 { x.slice(s![.., first.., ..]) } else { x };
        let x = x + attended;
        let normed = ops::rms_norm(x.clone(), &self.mlp_norm, self.eps);
        x + self.mlp.forward(normed, context)
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>, context: &Context) -> Tensor<3> {
        let adapt = |projection, x: &Tensor<3>, y| context.adapter.apply(Site { layer: self.layer, projection }, x, y);
        let [gate, up] = Linear::pair([&self.gate, &self.up], x.clone());
        let gate = adapt(Projection::Gate, &x, gate);
        let up = adapt(Projection::Up, &x, up);
        let inner = ops::swiglu(gate, up);
        adapt(Projection::Down, &inner, self.down.forward(inner.clone()))
    }
}

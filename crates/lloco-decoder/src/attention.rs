//! Grouped-query self-attention with rotary positions.

use burn::tensor::{Device, Tensor, s};

use crate::{
    Checkpoint, DecoderConfig, LinearAdapter, Packing, Projection, Result, Site, WeightType, cache::LayerCache,
    linear::Linear, ops,
};

/// The self-attention of one layer.
#[derive(Debug)]
pub(crate) struct Attention {
    layer: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    eps: f64,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// Per-head norms of queries and keys, `[head_dim]` (Qwen3).
    norms: Option<(Tensor<1>, Tensor<1>)>,
}

/// What a layer must know beside its input.
pub(crate) struct Context<'a> {
    pub(crate) adapter: &'a dyn LinearAdapter,
    /// Rotary tables, `[positions, head_dim / 2]`; with a packing, of the rows instead.
    pub(crate) cos: &'a Tensor<2>,
    pub(crate) sin: &'a Tensor<2>,
    /// Positions already in the cache.
    pub(crate) past: usize,
    /// Left padding of each sequence; may be empty.
    pub(crate) padding: &'a [usize],
    /// Whether a row sees none behind it.
    pub(crate) causal: bool,
    /// How the rows divide into sequences, if not into a batch of equal ones.
    pub(crate) packing: Option<&'a Packing>,
    /// The newest rows that this layer has to compute; keys and values are kept for all.
    pub(crate) rows: usize,
}

impl Attention {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        config: &DecoderConfig,
        layer: usize,
        weights: WeightType,
        device: &Device,
    ) -> Result<Self> {
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (wide, narrow) = (config.num_attention_heads * dim, config.num_key_value_heads * dim);
        let linear = |projection, shape, bias| {
            Linear::load(checkpoint, &Site { layer, projection }.path(), shape, bias, weights, device)
        };
        let norm = |name: &str| -> Result<Tensor<1>> {
            let name = format!("model.layers.{layer}.self_attn.{name}.weight");
            Ok(Tensor::from_data(checkpoint.tensor(&name, &[dim])?, device))
        };
        Ok(Self {
            layer,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: dim,
            eps: config.rms_norm_eps,
            query: linear(Projection::Query, [wide, hidden], config.qkv_bias)?,
            key: linear(Projection::Key, [narrow, hidden], config.qkv_bias)?,
            value: linear(Projection::Value, [narrow, hidden], config.qkv_bias)?,
            output: linear(Projection::Output, [hidden, wide], config.output_bias)?,
            norms: if config.qk_norm { Some((norm("q_norm")?, norm("k_norm")?)) } else { None },
        })
    }

    /// The four projections.
    pub(crate) fn projections(&self) -> [&Linear; 4] {
        [&self.query, &self.key, &self.value, &self.output]
    }

    /// `x` `[batch, seq, hidden]` -> `[batch, rows, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<3>, context: &Context, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let first = seq - context.rows;
        let newest = if first > 0 { x.clone().slice(s![.., first.., ..]) } else { x.clone() };
        let q = self.project(&self.query, Projection::Query, newest, context);
        let k = self.project(&self.key, Projection::Key, x.clone(), context);
        let v = self.project(&self.value, Projection::Value, x, context);

        let mut q = q.reshape([batch, context.rows, self.heads, self.head_dim]);
        let mut k = k.reshape([batch, seq, self.kv_heads, self.head_dim]);
        let v = v.reshape([batch, seq, self.kv_heads, self.head_dim]).swap_dims(1, 2);
        if let Some((q_norm, k_norm)) = &self.norms {
            q = ops::rms_norm(q, q_norm, self.eps);
            k = ops::rms_norm(k, k_norm, self.eps);
        }
        let q = ops::rope(q, context.cos, context.sin, context.past + first, context.padding);
        let k = ops::rope(k, context.cos, context.sin, context.past, context.padding).swap_dims(1, 2);

        let (k, v) = match cache {
            Some(cache) => cache.append(context.past, k, v),
            None => (k, v),
        };
        let mixed = match context.packing {
            Some(packing) => packing.attention(q, k, v),
            None => ops::attention(q, k, v, context.padding, context.causal),
        };
        self.project(&self.output, Projection::Output, mixed, context)
    }

    fn project(&self, linear: &Linear, projection: Projection, x: Tensor<3>, context: &Context) -> Tensor<3> {
        linear.adapted(x, Site { layer: self.layer, projection }, context.adapter)
    }
}

//! Grouped-query self-attention with rotary positions.

use burn::tensor::{Device, Tensor, s};

use crate::{
    Checkpoint, DecoderConfig, LinearAdapter, Packing, Projection, Result, Site, WeightType,
    cache::LayerCache,
    linear::Linear,
    ops::{self, Seen},
};

/// The self-attention of one layer.
#[derive(Debug)]
pub(crate) struct Attention {
    layer: usize,
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
    /// Which rows a row sees; the padding is that on the left of each sequence.
    pub(crate) seen: Seen,
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
        let first = x.dims()[1] - context.rows;
        let newest = if first > 0 { x.clone().slice(s![.., first.., ..]) } else { x.clone() };
        let [q, k, v] = if first > 0 {
            let [k, v] = Linear::pair([&self.key, &self.value], x.clone());
            [self.query.forward(newest.clone()), k, v]
        } else {
            Linear::triple([&self.query, &self.key, &self.value], x.clone())
        };
        let adapt = |projection, x: &Tensor<3>, y| context.adapter.apply(Site { layer: self.layer, projection }, x, y);
        let mut q = adapt(Projection::Query, &newest, q);
        let mut k = adapt(Projection::Key, &x, k);
        let v = adapt(Projection::Value, &x, v);
        drop((x, newest));
        if let Some((q_norm, k_norm)) = &self.norms {
            q = self.normed(q, q_norm);
            k = self.normed(k, k_norm);
        }
        let mixed = match cache {
            Some(cache) => cache.attend(q, k, v, context),
            None => self.attend(q, k, v, context),
        };
        adapt(Projection::Output, &mixed, self.output.forward(mixed.clone()))
    }

    /// Attention without a cache: `q` `[batch, rows, heads * dim]`, `k`, `v` `[batch, seq, kv_heads * dim]`.
    fn attend(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, context: &Context) -> Tensor<3> {
        let first = k.dims()[1] - context.rows;
        let q = context.turn(heads(q, self.head_dim), first);
        let k = context.turn(heads(k, self.head_dim), 0).swap_dims(1, 2);
        let v = heads(v, self.head_dim).swap_dims(1, 2);
        match context.packing {
            Some(packing) => packing.attention(q, k, v, &context.seen),
            None => ops::attention(q, k, v, &context.seen),
        }
    }

    /// Each head's RMSNorm.
    fn normed(&self, x: Tensor<3>, norm: &Tensor<1>) -> Tensor<3> {
        let shape = x.dims();
        ops::rms_norm(heads(x, self.head_dim), norm, self.eps).reshape(shape)
    }
}

impl Context<'_> {
    /// Rotates `x` `[batch, seq, heads, dim]`, whose rows begin at `first` of those that are read now.
    pub(crate) fn turn(&self, x: Tensor<4>, first: usize) -> Tensor<4> {
        ops::rope(x, self.cos, self.sin, self.past + first, &self.seen.padding)
    }
}

/// `[batch, seq, heads * dim]` -> `[batch, seq, heads, dim]`.
pub(crate) fn heads(x: Tensor<3>, dim: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, width / dim, dim])
}

//! Grouped-query self-attention with rotary positions, behind a norm and with a residual.

use burn::tensor::{Device, Tensor, s};

#[cfg(feature = "flex")]
use crate::kernels;
use crate::{
    Checkpoint, DecoderConfig, LinearAdapter, Projection, Result, Site, WeightType,
    cache::AtLayer,
    linear::Linear,
    norm::Norm,
    ops::{self, Seen},
};

/// The self-attention of one layer.
#[derive(Debug)]
pub(crate) struct Attention {
    layer: usize,
    head_dim: usize,
    norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// Per-head norms of queries and keys, `[head_dim]` (Qwen3).
    norms: Option<(Norm, Norm)>,
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
    /// The newest rows that this layer has to compute; keys and values are kept for all.
    pub(crate) rows: usize,
    /// The new rows that stay in the cache, the first ones.
    pub(crate) kept: usize,
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
        let norm = |name: &str, width| {
            let name = format!("model.layers.{layer}.{name}.weight");
            Norm::load(checkpoint, &name, width, config.rms_norm_eps, device)
        };
        Ok(Self {
            layer,
            head_dim: dim,
            norm: norm("input_layernorm", hidden)?,
            query: linear(Projection::Query, [wide, hidden], config.qkv_bias)?,
            key: linear(Projection::Key, [narrow, hidden], config.qkv_bias)?,
            value: linear(Projection::Value, [narrow, hidden], config.qkv_bias)?,
            output: linear(Projection::Output, [hidden, wide], config.output_bias)?,
            norms: match config.qk_norm {
                true => Some((norm("self_attn.q_norm", dim)?, norm("self_attn.k_norm", dim)?)),
                false => None,
            },
        })
    }

    /// The four projections.
    pub(crate) fn projections(&self) -> [&Linear; 4] {
        [&self.query, &self.key, &self.value, &self.output]
    }

    /// `x` `[batch, seq, hidden]` -> its newest `context.rows` rows with what they attend to added, `[batch, rows, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<3>, context: &Context, cache: Option<AtLayer<'_>>) -> Result<Tensor<3>> {
        let first = x.dims()[1] - context.rows;
        let [q, k, v] = self.read(&x, context);
        let x = if first > 0 { x.slice(s![.., first.., ..]) } else { x };
        let mixed = match cache {
            Some(cache) => cache.attend(q, k, v, context)?,
            None => self.attend(q, k, v, context),
        };
        let site = Site { layer: self.layer, projection: Projection::Output };
        #[cfg(feature = "flex")]
        if !context.adapter.adapts(site)
            && !mixed.is_autodiff()
            && let Some(output) = self.output.packed(&x)
        {
            return Ok(self.output.biased(kernels::add_linear(x, mixed, output)));
        }
        Ok(x + context.adapter.apply(site, &mixed, self.output.forward(mixed.clone())))
    }

    /// Queries of the newest rows, keys and values of all, before they are turned.
    fn read(&self, x: &Tensor<3>, context: &Context) -> [Tensor<3>; 3] {
        let first = x.dims()[1] - context.rows;
        let site = |projection| Site { layer: self.layer, projection };
        #[cfg(feature = "flex")]
        if first == 0
            && ![Projection::Query, Projection::Key, Projection::Value].iter().any(|p| context.adapter.adapts(site(*p)))
            && let (Some(q), Some(k), Some(v)) = (self.query.packed(x), self.key.packed(x), self.value.packed(x))
        {
            let (gamma, eps) = (self.norm.gamma.clone(), self.norm.eps);
            let [q, k, v] = kernels::normed_triple(x.clone(), gamma, eps, [q, k, v]);
            return self.headwise([self.query.biased(q), self.key.biased(k), self.value.biased(v)]);
        }
        let x = self.norm.forward(x.clone());
        let newest = if first > 0 { x.clone().slice(s![.., first.., ..]) } else { x.clone() };
        let [q, k, v] = if first > 0 {
            let [k, v] = Linear::pair([&self.key, &self.value], x.clone());
            [self.query.forward(newest.clone()), k, v]
        } else {
            Linear::triple([&self.query, &self.key, &self.value], x.clone())
        };
        let adapt = |projection, x: &Tensor<3>, y| context.adapter.apply(site(projection), x, y);
        let q = adapt(Projection::Query, &newest, q);
        let k = adapt(Projection::Key, &x, k);
        self.headwise([q, k, adapt(Projection::Value, &x, v)])
    }

    /// Queries and keys behind their norms, if they have some.
    fn headwise(&self, [q, k, v]: [Tensor<3>; 3]) -> [Tensor<3>; 3] {
        let normed = |x: Tensor<3>, norm: &Norm| {
            let shape = x.dims();
            norm.forward(heads(x, self.head_dim)).reshape(shape)
        };
        match &self.norms {
            Some((q_norm, k_norm)) => [normed(q, q_norm), normed(k, k_norm), v],
            None => [q, k, v],
        }
    }

    /// Attention without a cache: `q` `[batch, rows, heads * dim]`, `k`, `v` `[batch, seq, kv_heads * dim]`.
    fn attend(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, context: &Context) -> Tensor<3> {
        let first = k.dims()[1] - context.rows;
        let q = context.turn(heads(q, self.head_dim), first);
        let k = context.turn(heads(k, self.head_dim), 0).swap_dims(1, 2);
        let v = heads(v, self.head_dim).swap_dims(1, 2);
        ops::attention(q, k, v, &context.seen)
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

//! Operations and bytes that a piece of work takes, from the model's shapes.

use lloco_decoder::{DecoderConfig, Projection};

/// Counts for one model.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Weights of the projections in all layers.
    projections: f64,
    /// Weights of the output head.
    head: f64,
    /// Operations for one query to meet one key and its value, over all layers and heads.
    pair: f64,
    /// Numbers that one position leaves in the KV cache, over all layers.
    cached: f64,
}

impl Cost {
    /// The counts of `model`.
    pub fn of(model: &DecoderConfig) -> Self {
        let (hidden, dim) = (model.hidden_size as f64, model.head_dim as f64);
        let (heads, kv_heads) = (model.num_attention_heads as f64, model.num_key_value_heads as f64);
        let inner = model.intermediate_size as f64;
        let weights = |projection: &Projection| match projection {
            Projection::Query | Projection::Output => hidden * heads * dim,
            Projection::Key | Projection::Value => hidden * kv_heads * dim,
            Projection::Gate | Projection::Up | Projection::Down => hidden * inner,
        };
        let layers = model.num_hidden_layers as f64;
        Self {
            projections: layers * Projection::ALL.iter().map(weights).sum::<f64>(),
            head: model.vocab_size as f64 * hidden,
            pair: layers * 4.0 * heads * dim,
            cached: layers * 2.0 * kv_heads * dim,
        }
    }

    /// Floating-point operations to read `new` positions behind `past`, without the output head.
    pub fn read(&self, new: usize, past: usize) -> f64 {
        let (new, past) = (new as f64, past as f64);
        2.0 * self.projections * new + self.pair * (new * past + new * (new + 1.0) / 2.0)
    }

    /// Bytes that one decoding step has to move: every weight once, and the cache behind `past` positions.
    pub fn step_bytes(&self, past: usize, weight_bytes: f64, cache_bytes: f64) -> f64 {
        (self.projections + self.head) * weight_bytes + self.cached * past as f64 * cache_bytes
    }
}

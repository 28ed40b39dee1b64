//! Operations and numbers that a piece of work takes, from the model's shapes.

use lloco_decoder::{DecoderConfig, Projection};

/// Counts for one model.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    layers: f64,
    /// Weights of the key and value projections of one layer.
    stored: f64,
    /// Weights of the other projections of one layer.
    others: f64,
    /// Operations for one query to meet one key and its value, over all heads of one layer.
    pair: f64,
    /// Numbers that one position leaves in the cache of one layer.
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
        let all: f64 = Projection::ALL.iter().map(weights).sum();
        let stored = weights(&Projection::Key) + weights(&Projection::Value);
        Self {
            layers: model.num_hidden_layers as f64,
            stored,
            others: all - stored,
            pair: 4.0 * heads * dim,
            cached: 2.0 * kv_heads * dim,
        }
    }

    /// Floating-point operations to read `new` positions behind `past`, without the output head. The last layer computes
    /// keys and values of all, and the rest of the newest `rows` alone.
    pub fn read(&self, new: usize, past: usize, rows: usize) -> f64 {
        let (new, past, rows) = (new as f64, past as f64, rows as f64);
        let layer = |rows: f64| {
            let pairs = rows * (past + new) - rows * (rows - 1.0) / 2.0;
            2.0 * (self.stored * new + self.others * rows) + self.pair * pairs
        };
        (self.layers - 1.0) * layer(new) + layer(rows)
    }

    /// Numbers that a cache of `past` positions holds.
    pub fn cached(&self, past: usize) -> f64 {
        self.layers * self.cached * past as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_layer_by_hand() {
        let cost = Cost { layers: 1.0, stored: 10.0, others: 100.0, pair: 4.0, cached: 6.0 };
        // Three rows behind two: they meet 3, 4 and 5 keys.
        assert_eq!(cost.read(3, 2, 3), 2.0 * 110.0 * 3.0 + 4.0 * 12.0);
        assert_eq!(cost.read(3, 2, 1), 2.0 * (10.0 * 3.0 + 100.0) + 4.0 * 5.0);
        assert_eq!(cost.cached(7), 42.0);
    }
}

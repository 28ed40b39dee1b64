//! How much arithmetic reading is: by the model's shape, and summed up over the passes of a decoder.
//!
//! A product of `[n, k]` and `[k, m]` counts as `2 n k m` floating-point operations. Counted are the seven projections of each
//! layer, queries with keys, their weights with values, and the output head. Norms, rotations, softmax and what adapters
//! add are not: a few per cent, but for a compressor whose encoder is trained in full.

use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::DType;

use crate::{
    Decoder, DecoderConfig,
    measured::{self, Projection},
};

/// The operations of a decoder's passes so far, as the bits of an `f64`.
#[derive(Debug, Default)]
pub(crate) struct Operations(AtomicU64);

impl Operations {
    /// Adds those of a product, and as many again if gradients go back through it.
    pub(crate) fn add(&self, forward: f64, tracked: bool) {
        let more = if tracked { 2.0 * forward } else { forward };
        let add = |sum| Some((f64::from_bits(sum) + more).to_bits());
        // It always gives a sum, so that there is no error.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(crate) fn sum(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl DecoderConfig {
    /// Floating-point operations to read `new` positions behind `past`, without the output head. The last layer computes
    /// keys and values of all, and the rest of the newest `rows` alone.
    ///
    /// A layer with `w` weights in its projections, on `n` positions that see `p` positions altogether, takes
    /// `2 w n + 4 heads head_dim p`.
    ///
    /// ```
    /// # fn operations(config: &lloco_decoder::DecoderConfig) {
    /// let at_once = config.operations(100, 0, 100);
    /// let in_two = config.operations(60, 0, 60) + config.operations(40, 60, 40);
    /// assert!((at_once - in_two).abs() < 1e-9 * at_once);
    /// assert!(config.operations(100, 0, 1) < at_once);
    /// # }
    /// # let json = r#"{"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 6,
    /// #     "num_hidden_layers": 3, "num_attention_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 128}"#;
    /// # operations(&lloco_decoder::DecoderConfig::from_json(json, "config.json".as_ref()).expect("complete"));
    /// ```
    pub fn operations(&self, new: usize, past: usize, rows: usize) -> f64 {
        self.operations_of(self.num_hidden_layers, [new, rows], |rows| seen(rows, past + new))
    }

    /// As [`operations`](Self::operations), of the first `layers` layers; `pairs` says how many positions the newest so many
    /// rows see altogether.
    pub(crate) fn operations_of(&self, layers: usize, [new, rows]: [usize; 2], pairs: impl Fn(usize) -> f64) -> f64 {
        let hidden = self.hidden_size as f64;
        let queries = (self.num_attention_heads * self.head_dim) as f64;
        let stored = 2.0 * hidden * (self.num_key_value_heads * self.head_dim) as f64;
        let others = 2.0 * hidden * queries + 3.0 * hidden * self.intermediate_size as f64;
        let layer = |rows: usize| 2.0 * (stored * new as f64 + others * rows as f64) + 4.0 * queries * pairs(rows);
        layers.saturating_sub(1) as f64 * layer(new) + layer(rows)
    }
}

/// Positions that the newest `rows` of `all` see altogether, each itself and those before it.
pub(crate) fn seen(rows: usize, all: usize) -> f64 {
    let (rows, all) = (rows as f64, all as f64);
    rows * all - rows * (rows - 1.0) / 2.0
}

impl Decoder {
    /// Floating-point operations of all that this decoder has computed so far, as [`DecoderConfig::operations`] counts
    /// them, and those of the output head.
    ///
    /// A pass that is tracked by autodiff counts twice: forward, and as much again for the gradients of its inputs, even if
    /// nothing before it wants them. Frozen weights have none, and those of an adapter's parts are left out. What is read
    /// anew for a backward pass is a pass of its own. All threads' passes count.
    pub fn operations(&self) -> f64 {
        self.operations.sum()
    }

    /// Floating-point operations a second that the device reaches in one large product with weights held as its first
    /// projection's: the kernel of linear projections on the CPU, burn's product, of bf16 as a rule, on GPUs. Takes about a second on a
    /// CPU.
    pub fn product_rate(&self) -> f64 {
        let (device, dtype) = (self.device(), DType::from(self.dtype()));
        let rate = measured::product_rate(device, dtype, |width| Projection::as_in(self, width, width));
        // A decoder without layers has no product to compare with.
        rate.unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use burn::tensor::Device;

    use super::*;
    use crate::{Checkpoint, NoAdapter, Packing, Pass, WeightType};

    fn config() -> DecoderConfig {
        let json = r#"{"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 6,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "max_position_embeddings": 32, "rms_norm_eps": 1e-5}"#;
        DecoderConfig::from_json(json, "config.json".as_ref()).unwrap()
    }

    /// Of keys and values, of the other projections, of a position that sees another: in one layer.
    const STORED: f64 = 2.0 * 2.0 * (8.0 * 8.0);
    const OTHERS: f64 = 2.0 * (2.0 * 8.0 * 16.0 + 3.0 * 8.0 * 6.0);
    const PAIR: f64 = 4.0 * 16.0;
    const HEAD: f64 = 2.0 * 8.0 * 10.0;

    #[test]
    fn counts_of_two_layers_by_hand() {
        let layer = STORED + OTHERS;
        // Three rows behind two: they see 3, 4 and 5 positions.
        assert_eq!(config().operations(3, 2, 3), 2.0 * (3.0 * layer + 12.0 * PAIR));
        let last = 3.0 * STORED + OTHERS + 5.0 * PAIR;
        assert_eq!(config().operations(3, 2, 1), 3.0 * layer + 12.0 * PAIR + last);
    }

    #[test]
    fn a_decoder_counts_what_it_computes() {
        let config = config();
        let decoder = Decoder::load(&Checkpoint::random(config.clone(), 1), WeightType::F32, &Device::flex()).unwrap();
        let (input, layer) = (decoder.embed(&[1, 2, 3, 4, 5]).unwrap(), STORED + OTHERS);
        let cost = |work: &dyn Fn()| {
            let before = decoder.operations();
            work();
            decoder.operations() - before
        };
        let pass = |pass: Pass<'_>| drop(decoder.forward(input.clone(), pass).unwrap());
        assert_eq!(cost(&|| pass(Pass::new().last_rows(2))), config.operations(5, 0, 2));
        assert_eq!(cost(&|| pass(Pass::new().layers(1))), 5.0 * layer + 15.0 * PAIR);
        assert_eq!(cost(&|| pass(Pass::new().bidirectional(true).layers(1))), 5.0 * layer + 25.0 * PAIR);
        // A trunk of two, a branch of two behind it, and one row alone.
        let mut packing = Packing::new();
        packing.tree(2, &[2]);
        packing.tree(1, &[]);
        assert_eq!(cost(&|| pass(Pass::new().packing(&packing))), 2.0 * (5.0 * layer + (3.0 + 7.0 + 1.0) * PAIR));
        let tracked = || drop(decoder.forward(input.clone().autodiff().require_grad(), Pass::new()).unwrap());
        assert_eq!(cost(&tracked), 2.0 * config.operations(5, 0, 5));

        let hidden = decoder.forward(input.clone(), Pass::new()).unwrap();
        assert_eq!(cost(&|| drop(decoder.logits(hidden.clone()))), 5.0 * HEAD);
        let losses = || drop(decoder.losses(hidden.clone().squeeze_dim(0), &[0; 5], &NoAdapter).unwrap());
        assert_eq!(cost(&losses), 5.0 * HEAD);
        assert!(decoder.product_rate() > 0.0);
    }
}

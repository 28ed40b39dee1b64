//! Which adapter has done best on the held-out examples, and how long ago.

use crate::Adapter;

/// What the evaluations of a run have said so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) best: Option<Best>,
    /// Evaluations since the best one.
    pub(super) stale: usize,
}

/// The adapter that did best on the held-out examples.
#[derive(Debug, Clone)]
pub(super) struct Best {
    pub(super) adapter: Adapter,
    pub(super) nll: f64,
    pub(super) step: usize,
}

impl Progress {
    /// Takes down an adapter's loss after a step and returns whether it is the lowest so far. One that is no finite
    /// number never is.
    pub(super) fn judge(&mut self, adapter: &Adapter, nll: f64, step: usize) -> bool {
        let better = nll.is_finite() && self.best.as_ref().is_none_or(|best| nll < best.nll);
        if better {
            *self = Self { best: Some(Best { adapter: adapter.clone(), nll, step }), stale: 0 };
        } else {
            self.stale += 1;
        }
        better
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use lloco_decoder::{DecoderConfig, burn::tensor::Device};

    use super::*;
    use crate::LoraConfig;

    #[test]
    fn a_loss_that_is_no_number_is_never_best() {
        let json = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8, "rms_norm_eps": 1e-5}"#;
        let model = DecoderConfig::from_json(json, "config.json".as_ref()).unwrap();
        let adapter = Adapter::init(&LoraConfig::default(), &model, 1, &Device::flex()).unwrap();
        let mut progress = Progress::default();
        let mut judge = |step: usize, nll: f64| {
            let better = progress.judge(&adapter, nll, step);
            (better, progress.best.as_ref().map(|best| best.step), progress.stale)
        };
        assert_eq!(judge(1, f64::NAN), (false, None, 1));
        assert_eq!(judge(2, f64::NEG_INFINITY), (false, None, 2));
        assert_eq!(judge(3, 2.0), (true, Some(3), 0));
        assert_eq!(judge(4, f64::NAN), (false, Some(3), 1));
        assert_eq!(judge(5, 2.0), (false, Some(3), 2));
        assert_eq!(judge(6, 1.5), (true, Some(6), 0));
        assert_eq!(judge(7, f64::INFINITY), (false, Some(6), 1));
    }
}

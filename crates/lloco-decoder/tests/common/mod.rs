//! A small model of random weights.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use lloco_decoder::{Checkpoint, Decoder, DecoderConfig, WeightType, burn::tensor::Device};
use serde_json::json;

/// The model in full precision.
#[allow(dead_code, reason = "each test takes what it needs")]
pub(crate) fn decoder() -> Decoder {
    decoder_of(WeightType::F32)
}

/// Three layers, two query heads to a key head, no size a multiple of a register.
pub(crate) fn decoder_of(weights: WeightType) -> Decoder {
    let config = json!({
        "model_type": "llama", "hidden_size": 44, "intermediate_size": 75, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 51,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    });
    let config = DecoderConfig::from_json(&config.to_string(), Path::new("tiny")).unwrap();
    Decoder::load(&Checkpoint::random(config, 5), weights, &Device::flex()).unwrap()
}

//! A tiny model, compressors of which no part is zero, and samples; the tests are in files of their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, WeightType,
    burn::tensor::{Device, Tensor, TensorData},
};
use lloco_lora::{LoraConfig, durable::values, finetune::NamedGradients};

use super::{Losses, Sample, Stage, batch::batch_gradients, losses::Tally};
use crate::{Compressor, EncoderConfig, Mode, PooledConfig, Reader, Tuning};

mod bidirectional;
mod data;
mod finite;
mod fitting;
mod full;
mod gradients;
mod losses;

fn decoder() -> Decoder {
    let json = r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "eos_token_id": 2}"#;
    let config = DecoderConfig::from_json(json, "config.json".as_ref()).unwrap();
    Decoder::load(&Checkpoint::random(config, 3), WeightType::F32, &Device::flex()).unwrap()
}

fn noise<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = std::iter::repeat_with(next).take(shape.iter().product()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn busy(mode: Mode, reader: Reader, decoder: &Decoder) -> Compressor {
    busy_with(LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0).with_all_linear(), mode, reader, decoder)
}

/// A compressor of which no part is zero.
fn busy_with(encoder: impl Into<Tuning>, mode: Mode, reader: Reader, decoder: &Decoder) -> Compressor {
    let mut compressor = Compressor::init(mode, encoder, reader, decoder, "base", 5).unwrap();
    let mut seed = 0;
    compressor.weights = compressor.weights.map(|_, tensor| {
        seed += 1;
        tensor.clone() + noise(tensor.dims(), seed).mul_scalar(0.15)
    });
    compressor
}

fn auto_compressor() -> Mode {
    Mode::AutoCompressor(EncoderConfig { segment_length: 16, summary_length: 3, accumulate_summary: true })
}

fn pooled() -> Mode {
    Mode::Pooled(PooledConfig { segment_length: 8, ratios: vec![2, 4], layers: None, bidirectional: false })
}

fn own_reader() -> Reader {
    Reader::Own(LoraConfig::default().with_rank(2, 4.0).with_dropout(0.0))
}

fn samples(count: usize) -> Vec<Sample> {
    let ids = |n: usize, seed: usize| (0..n).map(|i| ((i * 31 + seed * 17 + i * i) % 96) as u32).collect::<Vec<_>>();
    let sample = |i: usize| Sample {
        name: format!("sample {i}"),
        document: format!("document {i}"),
        context: ids(if i == 1 { 15 } else { 19 }, i),
        continuation: ids(4 + i % 2, i + 50),
        questions: (0..[2, 0][i % 2]).map(|q| (ids(3 + i + q, i + 70), ids(2 + i, i + q + 80))).collect(),
    };
    (0..count).map(sample).collect()
}

fn stage(losses: Losses, ratios: Vec<usize>) -> Stage {
    let json = r#"{"name": "test", "steps": 1, "context": 19, "losses": {}, "target_tokens": 9}"#;
    let mut stage: Stage = serde_json::from_str(json).unwrap();
    stage.losses = losses;
    stage.ratios = ratios;
    stage
}

fn with(compressor: &Compressor, name: &str, step: &Tensor<2>, by: f64) -> Compressor {
    let weights = compressor.weights.map(|other, tensor| match other == name {
        true => tensor + step.clone().mul_scalar(by),
        false => tensor,
    });
    Compressor { config: compressor.config.clone(), weights }
}

fn dot(a: Tensor<2>, b: Tensor<2>) -> f64 {
    f64::from(values("dot", (a * b).sum()).unwrap()[0])
}

/// Compares gradients with slopes of `loss` along random directions, for every tensor of which `names` has a part.
fn agree(compressor: &Compressor, gradients: &NamedGradients, names: &[&str], loss: impl Fn(&Compressor) -> f64) {
    let parameters = compressor.weights.parameters();
    for part in names {
        let (name, parameter) = parameters.iter().find(|(name, _)| name.contains(part)).unwrap();
        let direction = noise::<2>(parameter.dims(), 11);
        let step = 4e-3;
        let slope = (loss(&with(compressor, name, &direction, step))
            - loss(&with(compressor, name, &direction, -step)))
            / (2.0 * step);
        let found = dot(gradients.get(name).unwrap().clone(), direction);
        assert!((slope - found).abs() < 0.02 * slope.abs().max(2e-3), "{name}: slope {slope}, gradient {found}");
    }
}

fn sum_of(tally: &Tally, losses: &Losses) -> f64 {
    let weights = [
        ("next_token", losses.next_token),
        ("reconstruction", losses.reconstruction),
        ("continuation", losses.continuation),
        ("answer", losses.answer),
        ("kl", losses.kl),
        ("binding", losses.binding),
    ];
    weights.into_iter().filter_map(|(name, weight)| Some(weight * tally.mean(name)?)).sum()
}

fn all_losses() -> Losses {
    Losses {
        reconstruction: 0.7,
        continuation: 0.5,
        answer: 0.9,
        kl: 1.3,
        kl_top: 7,
        binding: 0.4,
        ..Losses::default()
    }
}

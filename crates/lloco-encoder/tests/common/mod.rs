//! A tiny model and a tiny curriculum, shared by the tests.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod child;

use std::{fs, path::Path, sync::Arc};

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, WeightType,
    burn::tensor::{Device, Tensor},
};
use lloco_encoder::{Corpus, Curriculum, Result, Wording};

/// The fingerprint that tests give the tiny model.
pub(crate) const BASE: &str = "tiny";

/// Two layers of random weights, 96 tokens.
pub(crate) fn tiny_decoder() -> Arc<Decoder> {
    tiny_decoder_on(&Device::flex(), WeightType::F32)
}

/// The same on a device.
pub(crate) fn tiny_decoder_on(device: &Device, weights: WeightType) -> Arc<Decoder> {
    let json = r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "eos_token_id": 2}"#;
    let config = DecoderConfig::from_json(json, "config.json".as_ref()).unwrap();
    Arc::new(Decoder::load(&Checkpoint::random(config, 3), weights, device).unwrap())
}

/// A byte, a token.
pub(crate) struct Bytes;

impl Wording for Bytes {
    fn text(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(|byte| u32::from(byte) % 96).collect())
    }

    fn question(&self, question: &str) -> Result<Vec<u32>> {
        self.text(&format!("Q {question} A"))
    }

    fn answer(&self, answer: &str) -> Result<Vec<u32>> {
        self.text(&format!("{answer}."))
    }
}

/// Documents of unlike words.
pub(crate) fn text(document: usize, words: usize) -> String {
    let word = |i: usize| {
        let mut seed = (document * 7919 + i * 104_729 + 13) as u64;
        let letters = (0..3 + (i + document) % 4).map(|_| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            char::from(b'a' + ((seed >> 33) % 26) as u8)
        });
        letters.collect::<String>()
    };
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// A JSONL file of `documents` documents, every second one with a question.
pub(crate) fn jsonl(dir: &Path, documents: usize) -> Corpus {
    let line = |i: usize| {
        let text = text(i, 30 + i);
        let words: Vec<&str> = text.split(' ').collect();
        let questions = match i % 2 {
            0 => serde_json::json!([{"id": "q", "question": "what?", "answers": [words[3]]}]),
            _ => serde_json::json!([]),
        };
        serde_json::json!({"id": format!("d{i}"), "title": "t", "text": text, "questions": questions}).to_string()
            + "\n"
    };
    let path = dir.join("data.jsonl");
    fs::write(&path, (0..documents).map(line).collect::<String>()).unwrap();
    Corpus::open(&[path]).unwrap()
}

/// The same curriculum for an AutoCompressor.
pub(crate) fn auto_curriculum() -> String {
    CURRICULUM
        .replace(
            r#"{"pooled": {"segment_length": 16, "ratios": [4, 2]}}"#,
            r#"{"autocompressor": {"segment_length": 12, "summary_length": 3, "accumulate_summary": true}}"#,
        )
        .replace(r#""ratios": [2, 4], "#, "")
        .replace(r#""ratios": [2], "#, "")
        .replace(r#""ratios": [4], "#, "")
        .replace(r#"{"reconstruction": 1.0}"#, r#"{"next_token": 1.0}"#)
        .replace(r#""connector": 1e-3"#, r#""connector": 0.0"#)
        .replace(r#""encoder": 0.0"#, r#""encoder": 1e-3"#)
}

/// Three stages with every loss.
pub(crate) const CURRICULUM: &str = r#"{
    "mode": {"pooled": {"segment_length": 16, "ratios": [4, 2]}},
    "encoder": {"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1, "target_modules": "all-linear"},
    "reader": {"own": {"r": 2, "lora_alpha": 4.0}},
    "micro_batch": 2, "save_every": 1, "seed": 4,
    "stages": [
        {"name": "connector", "steps": 3, "batch": 3, "context": 16, "ratios": [2], "losses": {"reconstruction": 1.0},
         "learning_rates": {"encoder": 0.0, "connector": 1e-3, "reader": 0.0}},
        {"name": "read", "steps": 5, "batch": 3, "context": 24, "continuation": 8, "ratios": [2, 4], "target_tokens": 12,
         "losses": {"reconstruction": 0.3, "continuation": 0.3}},
        {"name": "answer", "steps": 6, "batch": 4, "context": 40, "continuation": 8, "ratios": [4], "distractors": 1,
         "losses": {"answer": 1.0, "continuation": 0.2, "kl": 2.0, "binding": 0.2}, "final_rate": 0.1}
    ]
}"#;

pub(crate) fn curriculum() -> Curriculum {
    Curriculum::from_json(CURRICULUM, "curriculum.json").unwrap()
}

pub(crate) fn values<const D: usize>(rows: Tensor<D>) -> Vec<f32> {
    rows.into_data().try_to_vec().unwrap()
}

pub(crate) fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

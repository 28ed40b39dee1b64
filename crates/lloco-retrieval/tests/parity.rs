//! Embeddings equal those of the PyTorch reference (`tests/data/generate.py`).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Copy, cosine, device, tiny};
use lloco_retrieval::{Embedder, EmbedderConfig, Embeddings, Pooling};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Tiny {
    texts: Vec<String>,
    plain: Poolings,
    query: Poolings,
}

#[derive(Deserialize)]
struct Poolings {
    mean: Vec<Vec<f32>>,
    cls: Vec<Vec<f32>>,
}

fn reference() -> Tiny {
    let json = include_str!("data/tiny-bert.json");
    serde_json::from_str(json).unwrap()
}

/// Cosine above 0.9999 and no number off by more than `tolerance`.
#[track_caller]
fn assert_equal(found: &Embeddings, expected: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (n, (found, expected)) in found.rows().zip(expected).enumerate() {
        let cosine = cosine(found, expected);
        assert!(cosine > 0.9999, "row {n}: cosine {cosine}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < tolerance, "row {n}: {a} is not {b}");
        }
    }
}

fn embedder(pooling: Pooling, normalize: bool) -> Embedder {
    let mut config = EmbedderConfig::from_dir(tiny()).unwrap();
    config.pooling = pooling;
    config.normalize = normalize;
    config.passage_prefix = String::new();
    Embedder::load_with(tiny(), config, &device()).unwrap()
}

fn normalized(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let unit = |row: &Vec<f32>| {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter().map(|v| v / length).collect()
    };
    rows.iter().map(unit).collect()
}

#[test]
fn parity_mean_pooling() {
    let reference = reference();
    let found = embedder(Pooling::Mean, false).embed_passages(&reference.texts);
    assert_equal(&found.unwrap(), &reference.plain.mean, 2e-5);
}

#[test]
fn parity_first_token_pooling() {
    let reference = reference();
    let found = embedder(Pooling::Cls, false).embed_passages(&reference.texts);
    assert_equal(&found.unwrap(), &reference.plain.cls, 2e-5);
}

#[test]
fn parity_normalized() {
    let reference = reference();
    for (pooling, rows) in [(Pooling::Mean, &reference.plain.mean), (Pooling::Cls, &reference.plain.cls)] {
        let found = embedder(pooling, true).embed_passages(&reference.texts);
        assert_equal(&found.unwrap(), &normalized(rows), 5e-6);
    }
}

#[test]
fn parity_of_queries_with_the_prompt_of_the_directory() {
    let reference = reference();
    let embedder = Embedder::load(tiny(), &device()).unwrap();
    assert_eq!(embedder.config().query_prefix, "query: ");
    assert!(embedder.config().normalize);
    let found = embedder.embed_queries(&reference.texts).unwrap();
    assert_equal(&found, &normalized(&reference.query.mean), 5e-6);
}

#[test]
fn parity_of_half_precision_checkpoints() {
    let reference = reference();
    for (dtype, tolerance) in [(safetensors::Dtype::F16, 0.02), (safetensors::Dtype::BF16, 0.1)] {
        let copy = Copy::of_tiny();
        copy.rewrite_weights(|name| name.to_owned(), dtype);
        let mut config = EmbedderConfig::from_dir(copy.path()).unwrap();
        config.normalize = false;
        config.passage_prefix = String::new();
        let embedder = Embedder::load_with(copy.path(), config, &device()).unwrap();
        let found = embedder.embed_passages(&reference.texts).unwrap();
        assert_equal(&found, &reference.plain.mean, tolerance);
    }
}

#[test]
fn parity_does_not_depend_on_the_checkpoint_prefix() {
    let expected = Embedder::load(tiny(), &device()).unwrap();
    let expected = expected.embed_passages(&reference().texts).unwrap();
    for prefix in ["bert.", "model."] {
        let copy = Copy::of_tiny();
        copy.rewrite_weights(|name| format!("{prefix}{name}"), safetensors::Dtype::F32);
        let embedder = Embedder::load(copy.path(), &device()).unwrap();
        let found = embedder.embed_passages(&reference().texts).unwrap();
        assert_eq!(found, expected);
    }
}

#[test]
fn parity_with_layer_norms_of_old_checkpoints() {
    let expected = Embedder::load(tiny(), &device()).unwrap();
    let expected = expected.embed_passages(&reference().texts).unwrap();
    let copy = Copy::of_tiny();
    let old =
        |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    copy.rewrite_weights(old, safetensors::Dtype::F32);
    let embedder = Embedder::load(copy.path(), &device()).unwrap();
    assert_eq!(embedder.embed_passages(&reference().texts).unwrap(), expected);
}

/// `LLOCO_MINILM=DIRECTORY cargo nextest run -p lloco-retrieval --run-ignored only minilm`
#[test]
#[ignore = "needs all-MiniLM-L6-v2 in the directory that LLOCO_MINILM names"]
fn parity_minilm() {
    #[derive(Deserialize)]
    struct Reference {
        texts: Vec<String>,
        vectors: Vec<Vec<f32>>,
    }
    let reference: Reference = serde_json::from_str(include_str!("data/minilm.json")).unwrap();
    let directory = std::env::var("LLOCO_MINILM").expect("LLOCO_MINILM names a directory");
    let embedder = Embedder::load(Path::new(&directory), &device()).unwrap();
    assert_eq!(embedder.config().max_seq_length, 256);
    let found = embedder.embed_passages(&reference.texts).unwrap();
    assert_equal(&found, &reference.vectors, 1e-5);
}

//! What each type of weights costs in quality, and saves in memory, measured on the default model:
//! `cargo run --release -p lloco-benches --bin weights`.
//!
//! The text is that of `examples/data`. Perplexity is of its tokens in windows of 512; agreement is how often the most
//! likely token is that of f32 weights; the cosine is between summary vectors and those of f32 weights.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::{env, error::Error, fs, sync::Arc};

use lloco_core::{
    AutoCompressor, Checkpoint, ContextEncoder, Decoder, EncoderOptions, ModelSource, NoAdapter, Pass, WeightType,
    device,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tokens that are read together.
const WINDOW: usize = 512;
/// Tokens of the document that is compressed: two segments.
const DOCUMENT: usize = 3072;

/// What one type of weights gives.
struct Outcome {
    nll: f64,
    best: Vec<usize>,
    summaries: Vec<f32>,
}

fn main() -> Result<()> {
    let windows: usize = env::args().nth(1).map_or(Ok(16), |n| n.parse())?;
    let checkpoint = Checkpoint::open(ModelSource::default_model().resolve()?)?;
    let mut files: Vec<_> = fs::read_dir("examples/data")?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(fs::DirEntry::path);
    let mut text = String::new();
    for file in files.iter().filter(|file| file.path().extension().is_some_and(|e| e == "txt")) {
        text += &fs::read_to_string(file.path())?;
    }
    let ids = checkpoint.tokenizer()?.encode(&text)?;
    let exact = outcome(&checkpoint, WeightType::F32, &ids, windows)?;
    println!("| weights | perplexity | most likely token as with f32 | cosine of summaries to f32, mean / least |");
    println!("|---|---|---|---|");
    println!("| F32 | {:.4} | | |", exact.nll.exp());
    for weights in [WeightType::Bf16, WeightType::Auto, WeightType::Int8, WeightType::Q4] {
        let found = outcome(&checkpoint, weights, &ids, windows)?;
        let same = found.best.iter().zip(&exact.best).filter(|(a, b)| a == b).count();
        let cosines = cosines(&found.summaries, &exact.summaries, checkpoint.config().hidden_size);
        println!(
            "| {weights:?} | {:.4} | {:.2} % | {:.5} / {:.5} |",
            found.nll.exp(),
            100.0 * same as f64 / found.best.len() as f64,
            cosines.iter().sum::<f64>() / cosines.len() as f64,
            cosines.iter().copied().fold(f64::INFINITY, f64::min),
        );
    }
    Ok(())
}

fn outcome(checkpoint: &Checkpoint, weights: WeightType, ids: &[u32], windows: usize) -> Result<Outcome> {
    let decoder = Arc::new(Decoder::load(checkpoint, weights, &device("cpu")?)?);
    let (mut nll, mut best) = (Vec::new(), Vec::new());
    for window in ids.chunks_exact(WINDOW).take(windows) {
        let hidden = decoder.forward(decoder.embed(window)?, Pass::new())?;
        let scores = decoder.logits(hidden.clone()).squeeze_dim::<2>(0);
        best.extend(scores.argmax(1).into_data().iter::<i64>().map(|id| id as usize));
        let hidden = hidden.squeeze_dim::<2>(0).slice(0..WINDOW - 1);
        nll.extend(decoder.losses(hidden, &window[1..], &NoAdapter)?.into_data().iter::<f64>());
    }
    let encoder = AutoCompressor::load(checkpoint, decoder, &EncoderOptions::default())?;
    let summaries = encoder.encode(&ids[..DOCUMENT.min(ids.len())])?.into_data().iter::<f32>().collect();
    Ok(Outcome { nll: nll.iter().sum::<f64>() / nll.len() as f64, best, summaries })
}

/// The cosine of each row with its counterpart.
fn cosines(a: &[f32], b: &[f32], width: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let rows = a.chunks_exact(width).zip(b.chunks_exact(width));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect()
}

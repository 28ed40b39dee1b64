//! What each type of weights costs in quality, and saves in memory, measured on the default model:
//! `cargo run --release -p lloco-benches --bin weights [WINDOWS]`. `LLOCO_MODEL` may name the model's GGUF file.
//!
//! The text is that of `examples/data`. Perplexity is of its tokens in windows of 512; agreement is how often the most
//! likely token is that of f32 weights; the cosine is between the summary vectors that the project's trained compressor
//! makes and those that it makes with f32 weights.
//!
//! Three tables: the file's blocks; the same numbers as plain f32 weights, which the types have to round; and weights of
//! the same function that fit no block. The last have no summaries: the compressor's adapters were trained for the others.
#![allow(clippy::print_stdout, reason = "a program that prints")]

mod plain;
mod rescaled;

use std::{env, fs, path::Path, sync::Arc};

use lloco_benches::Result;
use lloco_core::{Checkpoint, Decoder, EncoderOptions, ModelSource, NoAdapter, Pass, WeightType, device};
use lloco_decoder::gguf::Gguf;
use lloco_encoder::Compressor;

/// Tokens that are read together.
const WINDOW: usize = 512;
/// Tokens of the document that is compressed.
const DOCUMENT: usize = 3072;
/// The trained compressor.
const COMPRESSOR: &str = "models/smollm2-135m-lloco";

/// What all types are measured on.
struct Text {
    ids: Vec<u32>,
    windows: usize,
    /// The fingerprint of the model that the compressor was trained for.
    base: String,
}

/// What one type of weights gives.
struct Outcome {
    nll: f64,
    best: Vec<usize>,
    /// Empty without a compressor.
    summaries: Vec<f32>,
}

fn main() -> Result<()> {
    let windows: usize = env::args().nth(1).map_or(Ok(16), |n| n.parse())?;
    let source = env::var("LLOCO_MODEL").map_or_else(|_| ModelSource::default_model(), |name| name.as_str().into());
    let path = source.resolve()?;
    let (checkpoint, gguf) = (Checkpoint::open(&path)?, Gguf::open(&path)?);
    let ids = checkpoint.tokenizer()?.encode(&read("examples/data".as_ref())?)?;
    let text = Text { ids, windows, base: checkpoint.fingerprint() };

    let rounded = [WeightType::Bf16, WeightType::Int8, WeightType::Q4];
    println!("The file's blocks:\n");
    let types = [WeightType::Bf16, WeightType::Auto, WeightType::Int8, WeightType::Q4];
    let file = table(&checkpoint, &types, &text, true, None)?;

    let mut tensors = plain::tensors(&gguf)?;
    let dir = tempfile::tempdir()?;
    println!("\nThe same numbers as plain f32 weights:\n");
    table(&plain::checkpoint(&gguf, &tensors, dir.path())?, &rounded, &text, true, Some(&file))?;

    rescaled::rescale(&mut tensors, checkpoint.config())?;
    let dir = tempfile::tempdir()?;
    println!("\nPlain weights of the same function that fit no block:\n");
    table(&plain::checkpoint(&gguf, &tensors, dir.path())?, &rounded, &text, false, Some(&file))?;
    Ok(())
}

/// The text files of a directory, in order of their names.
fn read(dir: &Path) -> Result<String> {
    let mut files: Vec<_> = fs::read_dir(dir)?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(fs::DirEntry::path);
    let texts = files.iter().filter(|file| file.path().extension().is_some_and(|e| e == "txt"));
    Ok(texts.map(|file| fs::read_to_string(file.path())).collect::<std::io::Result<_>>()?)
}

/// Prints a row for f32 and one for each of `types`; returns what f32 gives, with which `same` has to agree.
fn table(
    checkpoint: &Checkpoint,
    types: &[WeightType],
    text: &Text,
    compress: bool,
    same: Option<&Outcome>,
) -> Result<Outcome> {
    let exact = outcome(checkpoint, WeightType::F32, text, compress)?;
    if let Some(same) = same.filter(|same| (same.nll - exact.nll).abs() > 1e-4) {
        return Err(format!("not the same function: {} nats a token against {}", exact.nll, same.nll).into());
    }
    println!("| weights | perplexity | most likely token as with f32 | cosine of summaries to f32, mean / least |");
    println!("|---|---|---|---|");
    println!("| F32 | {:.4} | | |", exact.nll.exp());
    for &weights in types {
        let found = outcome(checkpoint, weights, text, compress)?;
        let same = found.best.iter().zip(&exact.best).filter(|(a, b)| a == b).count();
        let cosines = cosines(&found.summaries, &exact.summaries, checkpoint.config().hidden_size);
        let summaries = match cosines.iter().copied().reduce(f64::min) {
            Some(least) => format!("{:.5} / {least:.5}", cosines.iter().sum::<f64>() / cosines.len() as f64),
            None => String::new(),
        };
        println!(
            "| {weights:?} | {:.4} | {:.2} % | {summaries} |",
            found.nll.exp(),
            100.0 * same as f64 / found.best.len() as f64,
        );
    }
    Ok(exact)
}

fn outcome(checkpoint: &Checkpoint, weights: WeightType, text: &Text, compress: bool) -> Result<Outcome> {
    let decoder = Arc::new(Decoder::load(checkpoint, weights, &device("cpu")?)?);
    let (mut nll, mut best) = (Vec::new(), Vec::new());
    for window in text.ids.chunks_exact(WINDOW).take(text.windows) {
        let hidden = decoder.forward(decoder.embed(window)?, Pass::new())?;
        let scores = decoder.logits(hidden.clone()).squeeze_dim::<2>(0);
        best.extend(scores.argmax(1).into_data().iter::<i64>().map(|id| id as usize));
        let hidden = hidden.squeeze_dim::<2>(0).slice(0..WINDOW - 1);
        nll.extend(decoder.losses(hidden, &window[1..], &NoAdapter)?.into_data().iter::<f64>());
    }
    let mut summaries = Vec::new();
    if compress {
        let encoder =
            Compressor::load(COMPRESSOR, &decoder, &text.base)?.encoder(decoder, &EncoderOptions::default())?;
        summaries = encoder.encode(&text.ids[..DOCUMENT.min(text.ids.len())])?.into_data().iter::<f32>().collect();
    }
    Ok(Outcome { nll: nll.iter().sum::<f64>() / nll.len() as f64, best, summaries })
}

/// The cosine of each row with its counterpart.
fn cosines(a: &[f32], b: &[f32], width: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let rows = a.chunks_exact(width).zip(b.chunks_exact(width));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect()
}

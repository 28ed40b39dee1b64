//! Measures embedding and exact search on this machine.
//!
//! ```text
//! cargo run --release -p lloco-retrieval --example speed -- embed MODEL_DIRECTORY [TEXTS.txt]
//! cargo run --release -p lloco-retrieval --example speed -- search ROWS DIMENSIONS
//! ```
//!
//! `embed` takes a text a line, or makes 512 passages of about 200 words.
#![allow(clippy::print_stdout, reason = "it reports to a terminal")]

use lloco_retrieval::burn::tensor::Device;
use lloco_retrieval::{DenseIndex, Embedder, Embeddings, RowType};
use std::error::Error;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["embed", model] => embed(model, synthetic()),
        ["embed", model, file] => {
            let text = std::fs::read_to_string(file)?;
            embed(model, text.lines().map(str::to_owned).collect())
        }
        ["search", rows, dim] => search(rows.parse()?, dim.parse()?),
        _ => Err("usage: speed embed MODEL [TEXTS] | speed search ROWS DIMENSIONS".into()),
    }
}

/// Passages of unequal length around 200 words.
fn synthetic() -> Vec<String> {
    let words = ["pump", "cellar", "budget", "the", "committee", "of", "decided", "inspection"];
    (0..512usize)
        .map(|n| {
            let length = 150 + n * 37 % 100;
            let word = |m: usize| words[(m * m + n) % words.len()];
            (0..length).map(word).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn embed(model: &str, texts: Vec<String>) -> Result<(), Box<dyn Error>> {
    let (embedder, loading) = timed(|| Embedder::load(model, &Device::default()));
    let embedder = embedder?;
    println!("loaded {model} in {:.2} s", loading.as_secs_f64());
    embedder.embed_passages(texts.get(..32.min(texts.len())).unwrap_or_default())?;
    let (vectors, time) = timed(|| embedder.embed_passages(&texts));
    println!(
        "{} texts in {:.2} s: {:.1} texts/s",
        vectors?.len(),
        time.as_secs_f64(),
        texts.len() as f64 / time.as_secs_f64()
    );
    let query = "Who decided on the budget for the pump in the cellar?";
    let times = (0..50).map(|_| timed(|| embedder.embed_query(query)).1);
    println!("one query: {:.2} ms", median(times));
    Ok(())
}

fn search(rows: usize, dim: usize) -> Result<(), Box<dyn Error>> {
    let mut state = 1u64;
    let mut number = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut matrix = |rows| {
        let values = (0..rows * dim).map(|_| number()).collect();
        Embeddings::new(dim, values)
    };
    for row_type in [RowType::F16, RowType::F32] {
        let mut index = DenseIndex::new(dim, "random", row_type)?;
        for first in (0..rows).step_by(10_000) {
            let keys: Vec<u64> = (first..rows.min(first + 10_000)).map(|k| k as u64).collect();
            index.add(&keys, &matrix(keys.len())?)?;
        }
        let bytes = rows * dim * if row_type == RowType::F16 { 2 } else { 4 };
        let queries = matrix(64)?;
        let one = queries.row(0).unwrap_or_default();
        let single = median((0..20).map(|_| timed(|| index.search(one, 10)).1));
        let batch = median((0..3).map(|_| timed(|| index.search_batch(&queries, 10, None)).1));
        println!(
            "{row_type:?} {rows} x {dim}: {single:.2} ms a query ({:.1} GB/s), {:.2} ms in batches of 64",
            bytes as f64 / single / 1e6,
            batch / 64.0
        );
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// In milliseconds.
fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e3
}

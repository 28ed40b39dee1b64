//! Measures embedding, exact search and keyword search on this machine.
//!
//! ```text
//! cargo run --release -p lloco-retrieval --features bm25 --example speed -- embed MODEL_DIRECTORY TEXTS
//! cargo run --release -p lloco-retrieval --features bm25 --example speed -- search ROWS DIMENSIONS
//! cargo run --release -p lloco-retrieval --features bm25 --example speed -- near ROWS DIMENSIONS VECTORS QUERIES
//! cargo run --release -p lloco-retrieval --features bm25 --example speed -- texts ROWS FILE
//! cargo run --release -p lloco-retrieval --features bm25 --example speed -- keyword FILE
//! ```
//!
//! `near` makes rows that lie as the given vectors do (files as `quality --vectors` writes them), and says how many of the
//! exact ten nearest each number of candidates finds. A file of texts has one a line. `texts` makes one of random words, as rare and as frequent as words are.
//! `retrieval_peers.py` beside this file measures other programs on the same texts and sizes.
#![allow(clippy::print_stdout, reason = "it reports to a terminal")]

use lloco_retrieval::burn::tensor::Device;
use lloco_retrieval::{DenseIndex, Embedder, Embeddings, KeywordIndex, RowType};
use rayon::prelude::*;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["embed", model, file] => embed(model, &lines(file)?),
        ["search", rows, dim] => search(rows.parse()?, dim.parse()?),
        ["near", rows, dim, vectors, queries] => near(rows.parse()?, dim.parse()?, vectors, queries),
        ["texts", rows, file] => write_texts(rows.parse()?, file),
        ["keyword", file] => keyword(&lines(file)?),
        _ => Err("usage: see the beginning of examples/speed.rs".into()),
    }
}

fn lines(file: &str) -> Result<Vec<String>, Box<dyn Error>> {
    Ok(fs::read_to_string(file)?.lines().map(str::to_owned).collect())
}

fn embed(model: &str, texts: &[String]) -> Result<(), Box<dyn Error>> {
    let (embedder, loading) = timed(|| Embedder::load(model, &Device::default()));
    let embedder = embedder?;
    println!("loaded in {:.2} s", loading.as_secs_f64());
    embedder.embed_passages(texts.get(..32.min(texts.len())).unwrap_or_default())?;
    let (vectors, time) = timed(|| embedder.embed_passages(texts));
    let (count, seconds) = (vectors?.len(), time.as_secs_f64());
    println!("{count} texts in {seconds:.2} s: {:.1} texts/s", count as f64 / seconds);
    let query = "Who decided on the budget for the pump in the cellar?";
    println!("one query: {:.2} ms", best((0..50).map(|_| timed(|| embedder.embed_query(query)).1)));
    Ok(())
}

fn search(rows: usize, dim: usize) -> Result<(), Box<dyn Error>> {
    let bandwidth = bandwidth();
    println!("this machine reads {bandwidth:.1} GB/s");
    println!("| rows | type | one query, ms | GB/s | of bandwidth | 32 at once, ms each | recall@10 |");
    println!("|---|---|---|---|---|---|---|");
    let mut state = 1;
    let mut matrix = |rows| {
        // The sum of four uniform numbers is nearly normal.
        let values = (0..rows * dim).map(|_| (0..4).map(|_| random(&mut state) - 0.5).sum::<f32>()).collect();
        let mut matrix = Embeddings::new(dim, values)?;
        matrix.normalize();
        Ok::<_, lloco_retrieval::Error>(matrix)
    };
    let types = [RowType::F32, RowType::F16, RowType::I8];
    let mut indexes =
        types.map(|row_type| DenseIndex::new(dim, "random", row_type)).into_iter().collect::<Result<Vec<_>, _>>()?;
    for first in (0..rows).step_by(10_000) {
        let keys: Vec<u64> = (first..rows.min(first + 10_000)).map(|key| key as u64).collect();
        let vectors = matrix(keys.len())?;
        indexes.iter_mut().try_for_each(|index| index.add(&keys, &vectors))?;
    }
    let queries = matrix(32)?;
    let one = queries.row(0).unwrap_or_default();
    let mut exact = Vec::new();
    for (index, size) in indexes.iter().zip([4, 2, 1]) {
        let single = best((0..60).map(|_| timed(|| index.search(one, 10)).1));
        let batch = best((0..6).map(|_| timed(|| index.search_batch(&queries, 10, None)).1));
        let found: Vec<Vec<u64>> = index
            .search_batch(&queries, 10, None)?
            .into_iter()
            .map(|hits| hits.into_iter().map(|hit| hit.key).collect())
            .collect();
        if exact.is_empty() {
            exact.clone_from(&found);
        }
        let common = |(a, b): (&Vec<u64>, &Vec<u64>)| a.iter().filter(|key| b.contains(key)).count();
        let recall = exact.iter().zip(&found).map(common).sum::<usize>() as f64 / (10 * exact.len()) as f64;
        let rate = (rows * dim * size) as f64 / single / 1e6;
        println!(
            "| {rows} | {:?} | {single:.2} | {rate:.1} | {:.0} % | {:.3} | {recall:.4} |",
            index.row_type(),
            100.0 * rate / bandwidth,
            batch / 32.0
        );
    }
    Ok(())
}

fn near(rows: usize, dim: usize, vectors: &str, queries: &str) -> Result<(), Box<dyn Error>> {
    let read = |file: &str| -> Result<Embeddings, Box<dyn Error>> {
        let bytes = fs::read(file)?;
        let (numbers, _) = bytes.as_chunks();
        Ok(Embeddings::new(dim, numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())?)
    };
    let (known, queries) = (read(vectors)?, read(queries)?);
    let mut index = DenseIndex::new(dim, "made up", RowType::F16)?;
    let mut state = 4;
    for first in (0..rows).step_by(10_000) {
        let keys: Vec<u64> = (first..rows.min(first + 10_000)).map(|key| key as u64).collect();
        let mut values = Vec::with_capacity(keys.len() * dim);
        for _ in &keys {
            // A known vector, moved by half the difference of two others: it stays among its neighbours, in directions
            // that vectors differ in.
            let mut any = || known.row((random(&mut state) * known.len() as f32) as usize).unwrap_or_default();
            let (a, b, c) = (any(), any(), any());
            values.extend(a.iter().zip(b).zip(c).map(|((a, b), c)| a + 0.5 * (b - c)));
        }
        let mut vectors = Embeddings::new(dim, values)?;
        vectors.normalize();
        index.add(&keys, &vectors)?;
    }
    let queries: Vec<&[f32]> = queries.rows().take(200).collect();
    let exact = queries.iter().map(|query| index.search(query, 10)).collect::<Result<Vec<_>, _>>()?;
    let (_, preparing) = timed(|| index.search_near(queries[0], 10, 10, None));
    println!("{rows} rows of f16 from {} vectors; signs made in {:.2} s", known.len(), preparing.as_secs_f64());
    println!("| candidates | median of {} queries, ms | recall@10 |\n|---|---|---|", queries.len());
    let median = |mut times: Vec<Duration>| -> f64 {
        times.sort();
        times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let times = queries.iter().take(30).map(|query| timed(|| index.search(query, 10)).1);
    println!("| all, exactly | {:.2} | 1 |", median(times.collect()));
    for candidates in [100, 300, 1000, 3000, 10_000] {
        let (mut times, mut common) = (Vec::new(), 0);
        for (query, exact) in queries.iter().zip(&exact) {
            let (found, time) = timed(|| index.search_near(query, 10, candidates, None));
            times.push(time);
            common += found?.iter().filter(|hit| exact.iter().any(|exact| exact.key == hit.key)).count();
        }
        let recall = common as f64 / (10 * queries.len()) as f64;
        println!("| {candidates} | {:.2} | {recall:.4} |", median(times));
    }
    Ok(())
}

/// Gigabytes a second that all cores together read from memory.
fn bandwidth() -> f64 {
    let numbers = vec![1_u64; 1 << 26];
    let read = || numbers.par_chunks(1 << 17).map(|part| part.iter().fold(0, |all, number| all ^ number)).max();
    let time = best((0..20).map(|_| timed(|| std::hint::black_box(read())).1));
    (numbers.len() * 8) as f64 / time / 1e6
}

fn write_texts(rows: usize, file: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::BufWriter::new(fs::File::create(file)?);
    let mut state = 2;
    for _ in 0..rows {
        let length = 40 + (random(&mut state) * 80.0) as usize;
        // The n-th most frequent of 100,000 words is about n times rarer than the first.
        let words: Vec<String> =
            (0..length).map(|_| format!("w{}", 100_000_f32.powf(random(&mut state)) as u32)).collect();
        writeln!(out, "{}", words.join(" "))?;
    }
    Ok(out.flush()?)
}

fn keyword(texts: &[String]) -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("lloco-speed-{}", std::process::id()));
    let mut index = KeywordIndex::create(&directory)?;
    let (indexed, building) = timed(|| index.update(&[], (0..).zip(texts)));
    indexed?;
    let mut state = 3;
    let queries: Vec<String> = (0..200)
        .map(|_| {
            let word = |_| format!("w{}", (10.0 * 10_000_f32.powf(random(&mut state))) as u32);
            (0..6).map(word).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let times = queries.iter().map(|query| best((0..5).map(|_| timed(|| index.search(query, 10, None)).1)));
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{} texts: indexed in {:.2} s, {:.3} ms a query of 6 words (median of the fastest of 5), {:.3} ms on average",
        index.len(),
        building.as_secs_f64(),
        times.get(times.len() / 2).copied().unwrap_or_default(),
        times.iter().sum::<f64>() / times.len() as f64
    );
    Ok(fs::remove_dir_all(directory)?)
}

/// The next number between 0 and 1.
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
    (*state >> 40) as f32 / (1 << 24) as f32
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// The shortest time, in milliseconds: what the machine does when nothing else runs on it.
fn best(times: impl Iterator<Item = Duration>) -> f64 {
    times.min().map_or(0.0, |time| time.as_secs_f64()) * 1e3
}

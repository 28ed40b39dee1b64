//! How long a library takes to find documents, as it grows: the store, the listing of documents, groups and passages
//! around the indexes. `cargo run --release -p lloco-benches --bin search -- DIRECTORY [DOCUMENTS]`.
//!
//! Makes the library in the directory if it is not there. Texts and summaries are made up; the embedder is the small one of
//! the tests, with vectors of 32, so that what is measured is not the embedder. `docs/results/retrieval.md` has the times
//! of the indexes themselves.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::{
    env,
    path::Path,
    time::{Duration, Instant},
};

use lloco_benches::Result;
use lloco_core::{
    AskOptions, GenerateConfig, Lloco, Search,
    store::{EncoderInfo, LocalStore, NewDocument, NewSummary, Pending, Store, SummaryRows},
};

/// Documents of a group.
const GROUP: usize = 1000;
const BATCH: usize = 1000;
/// Vectors of a document's summary.
const VECTORS: usize = 2;
const QUESTIONS: usize = 50;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (directory, documents) = match args.as_slice() {
        [directory] => (directory, 100_000),
        [directory, documents] => (directory, documents.parse()?),
        _ => return Err("give a directory, and perhaps a number of documents".into()),
    };
    let store = Path::new(directory);
    let library = open(store, Search::default(), None)?;
    let info = library.encoder_info().clone();
    drop(library);
    fill(store, &info, documents)?;
    let library = open(store, Search::default(), None)?;
    let indexed = library.add(&[])?;
    println!("{} passages indexed in {:.1} s", indexed.passages, indexed.embedding.as_secs_f64());
    drop(library);

    println!("{documents} documents in {} groups", documents.div_ceil(GROUP));
    println!("| search | open | first question | in all groups | in one group | of one document | after a removal |");
    println!("|---|---|---|---|---|---|---|");
    let ways = [("hybrid", Search::Hybrid), ("dense", Search::Dense), ("keyword", Search::Keyword)];
    for (name, search) in ways {
        measure(name, store, search, None)?;
    }
    measure("dense, 1,000 candidates", store, Search::Dense, Some(1000))
}

fn open(store: &Path, search: Search, candidates: Option<usize>) -> Result<Lloco> {
    let embedder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/lloco-retrieval/tests/data/tiny-bert");
    Ok(Lloco::builder().store(store).embedder(embedder).search(search).search_candidates(candidates).build()?)
}

fn measure(name: &str, store: &Path, search: Search, candidates: Option<usize>) -> Result<()> {
    let start = Instant::now();
    let library = open(store, search, candidates)?;
    let opened = start.elapsed();
    let ask = |number: usize, options: AskOptions| -> Result<Duration> {
        Ok(library.ask_with(&text(number * 7 + 3), &options.generation(GenerateConfig::greedy(1)))?.timings.retrieve)
    };
    let first = ask(0, AskOptions::default())?;
    let middle = |options: &dyn Fn(usize) -> AskOptions| -> Result<Duration> {
        let mut times = (1..=QUESTIONS).map(|number| ask(number, options(number))).collect::<Result<Vec<_>>>()?;
        times.sort();
        Ok(times[times.len() / 2])
    };
    let all = middle(&|_| AskOptions::default())?;
    let group = middle(&|number| AskOptions::default().group(group(number * GROUP / 2)))?;
    let named = middle(&|number| AskOptions::default().documents([number.to_string()]))?;
    let id = library.store().documents(Some(&self::group(0)))?.pop().ok_or("the first group is empty")?.id;
    library.store().remove(&id)?;
    let removed = ask(1, AskOptions::default())?;
    let times = [opened, first, all, group, named, removed].map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
    println!("| {name} | {} |", times.join(" | "));
    Ok(())
}

/// Adds documents with summaries, if there are none.
fn fill(path: &Path, encoder: &EncoderInfo, documents: usize) -> Result<()> {
    let store = LocalStore::open(path)?;
    if store.stats()?.documents > 0 {
        return Ok(());
    }
    let rows = |number: usize| {
        let values = (0..VECTORS * encoder.hidden as usize).map(|at| ((number + at) as f32).sin());
        SummaryRows::new(VECTORS, encoder.hidden as usize, values.collect())
    };
    for first in (0..documents).step_by(BATCH) {
        let all: Vec<(String, String, String)> = (first..documents.min(first + BATCH))
            .map(|number| (number.to_string(), group(number), text(number)))
            .collect();
        let new: Vec<NewDocument<'_>> =
            all.iter().map(|(id, group, text)| NewDocument::new(id, text).group(group)).collect();
        let work: Vec<Pending> = store.replace_all(&new)?.iter().map(Pending::of).collect();
        let tokens: Vec<[u32; 2]> = (first..first + work.len()).map(|number| [number as u32, 1]).collect();
        let segments: Vec<[&[u32]; 1]> = tokens.iter().map(|tokens| [tokens.as_slice()]).collect();
        let rows = (first..first + work.len()).map(|n| Ok([rows(n)?])).collect::<Result<Vec<_>>>()?;
        let new = work.iter().zip(&segments).zip(&rows);
        let new: Vec<NewSummary<'_>> =
            new.map(|((work, segments), rows)| NewSummary { work, segments, rows }).collect();
        store.put_summaries(encoder, &new)?;
    }
    Ok(())
}

fn group(number: usize) -> String {
    format!("group {}", number / GROUP)
}

/// Eight words, as rare and as frequent as words are.
fn text(number: usize) -> String {
    let mut state = number as u64 + 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1 << 24) as f64
    };
    let word = |_| {
        // The n-th most frequent of 50,000 words is about n times rarer than the first.
        let mut rank = 50_000_f64.powf(random()) as usize;
        let mut word = String::new();
        while rank > 0 {
            word.push(char::from(b"bcdfghlmnprstvw"[rank % 15]));
            word.push(char::from(b"aeiou"[rank / 15 % 5]));
            rank /= 75;
        }
        word
    };
    (0..8).map(word).collect::<Vec<_>>().join(" ")
}

//! Measures how well keyword, dense and hybrid search find what people marked as relevant.
//!
//! ```text
//! cargo run --release -p lloco-retrieval --features bm25 --example quality -- MODEL_DIRECTORY SET... [--vectors DIRECTORY]
//! ```
//!
//! A set is a folder as BEIR has them: `corpus.jsonl` (`id` or `_id`, `title`, `text`), `queries.jsonl` (`id` or `_id`,
//! `text`) and `qrels.tsv` (query, document, relevance). With `--vectors`, the vectors of whole texts and queries are
//! written there as little-endian f32, for a comparison with other programs, and an interrupted run goes on. `-` for the
//! model measures BM25 alone.
#![allow(clippy::print_stdout, reason = "it reports to a terminal")]

use lloco_retrieval::burn::tensor::Device;
use lloco_retrieval::{
    DenseIndex, Embedder, Embeddings, Hit, HybridRetriever, KeywordIndex, PassageConfig, PassageSplitter, Retriever,
    RowType, rank_documents, reciprocal_rank_fusion,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::Write as _;
use std::path::Path;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Documents that are ranked for each query.
const DEPTH: usize = 100;
/// Passages of which those documents are made.
const PASSAGES: usize = 1000;

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let vectors = match arguments.iter().position(|argument| argument == "--vectors") {
        Some(place) => arguments.drain(place..).nth(1),
        None => None,
    };
    let [model, sets @ ..] = arguments.as_slice() else { return Err("usage: quality MODEL SET...".into()) };
    let embedder = match model.as_str() {
        "-" => None,
        model => Some(Embedder::load(model, &Device::default())?),
    };
    println!("| set | unit | search | nDCG@10 | recall@10 | recall@100 | MRR |\n|---|---|---|---|---|---|---|");
    for set in sets {
        let set = Set::read(Path::new(set))?;
        match &embedder {
            Some(embedder) => {
                for unit in [Unit::Whole, Unit::Passages] {
                    measure(&set, unit, embedder, vectors.as_deref().map(Path::new))?;
                }
            }
            None => keyword_only(&set)?,
        }
    }
    Ok(())
}

/// What is indexed.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    /// Each text as it is; the embedder reads its beginning.
    Whole,
    /// Passages of up to 256 tokens; a document counts as its best passage.
    Passages,
}

fn keyword_only(set: &Set) -> Result<()> {
    let mut keyword = KeywordIndex::in_memory()?;
    keyword.update(&[], set.documents.iter().zip(0_u64..).map(|(text, number)| (number << 20, text)))?;
    let rank = |query: &Query| keyword.retrieve(&query.text, PASSAGES, None);
    let rankings = set.queries.iter().map(rank).collect::<Result<Vec<_>, _>>()?;
    println!("| {} | whole texts | BM25 | {} |", set.name, Scores::mean(set, &rankings));
    Ok(())
}

fn measure(set: &Set, unit: Unit, embedder: &Embedder, vectors: Option<&Path>) -> Result<()> {
    let splitter = PassageSplitter::new(embedder, PassageConfig::default())?;
    let mut keys = Vec::new();
    let mut texts = Vec::new();
    for (number, text) in set.documents.iter().enumerate() {
        let ranges: Vec<_> = match unit {
            Unit::Whole => std::iter::once(0..text.len()).collect(),
            Unit::Passages => splitter.split(text)?.into_iter().map(|passage| passage.range).collect(),
        };
        for (passage, range) in ranges.into_iter().enumerate() {
            keys.push((number as u64) << 20 | passage as u64);
            texts.push(text.get(range).unwrap_or_default());
        }
    }
    let mut keyword = KeywordIndex::in_memory()?;
    keyword.update(&[], keys.iter().copied().zip(&texts))?;
    let mut dense = DenseIndex::new(embedder.dim(), embedder.fingerprint(), RowType::F16)?;
    let rows = embed(set, embedder, &texts, vectors)?;
    dense.add(&keys, &rows)?;
    let queries: Vec<&str> = set.queries.iter().map(|query| query.text.as_str()).collect();
    let asked = embedder.embed_queries(&queries)?;
    if let (Unit::Whole, Some(directory)) = (unit, vectors) {
        write(&directory.join(format!("{}.documents.f32", set.name)), &rows)?;
        write(&directory.join(format!("{}.queries.f32", set.name)), &asked)?;
    }

    let by_meaning = dense.search_batch(&asked, PASSAGES, None)?;
    let mut by_words = Vec::new();
    for query in &queries {
        by_words.push(keyword.retrieve(query, PASSAGES, None)?);
    }
    let both = by_words.iter().zip(&by_meaning);
    let head = |hits: &Vec<Hit>| hits.iter().take(HybridRetriever::DEPTH).copied().collect();
    let fused = both.map(|(words, meaning)| reciprocal_rank_fusion(&[head(words), head(meaning)], PASSAGES)).collect();
    for (name, rankings) in [("BM25", by_words), ("dense", by_meaning), ("hybrid", fused)] {
        let scores = Scores::mean(set, &rankings);
        let unit = if unit == Unit::Whole { "whole texts" } else { "passages" };
        println!("| {} | {unit} | {name} | {scores} |", set.name);
    }
    Ok(())
}

/// The vectors of texts. What an earlier run made of them is read from the directory, where there is one.
fn embed(set: &Set, embedder: &Embedder, texts: &[&str], vectors: Option<&Path>) -> Result<Embeddings> {
    let Some(directory) = vectors else { return Ok(embedder.embed_passages(texts)?) };
    // The vectors of all texts that were embedded once, with a hash of each text before its vector.
    let path = directory.join(format!("{}.{:.16}.known", set.name, embedder.fingerprint()));
    let size = 8 + 4 * embedder.dim();
    let hash = |text: &str| BuildHasherDefault::<DefaultHasher>::default().hash_one(text).to_le_bytes();
    let bytes = if path.exists() { fs::read(&path)? } else { Vec::new() };
    let mut known: HashMap<[u8; 8], Vec<u8>> = HashMap::new();
    for entry in bytes.chunks_exact(size) {
        let (key, vector) = entry.split_first_chunk().ok_or("an entry is too short")?;
        known.insert(*key, vector.to_vec());
    }
    let mut missing: Vec<&str> = texts.iter().copied().filter(|text| !known.contains_key(&hash(text))).collect();
    // Texts of about the same length go together.
    missing.sort_by_key(|text| (text.len(), *text));
    missing.dedup();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
    // A piece that a killed run left.
    file.set_len((bytes.len() / size * size) as u64)?;
    for texts in missing.chunks(64) {
        let new = embedder.embed_passages(texts)?;
        for (text, vector) in texts.iter().zip(new.rows()) {
            let vector: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.write_all(&[&hash(text), vector.as_slice()].concat())?;
            known.insert(hash(text), vector);
        }
    }
    let all = texts.iter().filter_map(|text| known.get(&hash(text))).flat_map(|vector| vector.as_chunks().0);
    Ok(Embeddings::new(embedder.dim(), all.map(|value| f32::from_le_bytes(*value)).collect())?)
}

fn write(path: &Path, vectors: &Embeddings) -> Result<()> {
    let bytes: Vec<u8> = vectors.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(fs::write(path, bytes)?)
}

struct Set {
    name: String,
    /// Title and text.
    documents: Vec<String>,
    /// Those with a relevant document.
    queries: Vec<Query>,
}

struct Query {
    text: String,
    /// Relevance of documents, by number.
    relevant: HashMap<u64, f64>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "_id")]
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

impl Set {
    fn read(folder: &Path) -> Result<Self> {
        let lines = |name: &str| -> Result<Vec<Line>> {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
        };
        let corpus = lines("corpus.jsonl")?;
        let numbers: HashMap<&str, u64> = corpus.iter().map(|line| line.id.as_str()).zip(0..).collect();
        let mut relevant: HashMap<&str, HashMap<u64, f64>> = HashMap::new();
        let qrels = fs::read_to_string(folder.join("qrels.tsv"))?;
        for line in qrels.lines() {
            let [query, document, relevance] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
            // BEIR's files begin with a line of names.
            let Ok(relevance) = relevance.trim().parse::<f64>() else { continue };
            if let Some(&number) = numbers.get(document).filter(|_| relevance > 0.0) {
                relevant.entry(query).or_default().insert(number, relevance);
            }
        }
        let queries = lines("queries.jsonl")?.into_iter();
        let queries = queries.filter_map(|query| {
            let relevant = relevant.remove(query.id.as_str())?;
            Some(Query { text: query.text, relevant })
        });
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let queries = queries.collect();
        // Some sets repeat the title in the text.
        let whole = |line: Line| match line.text.starts_with(&line.title) {
            true => line.text,
            false => format!("{}\n{}", line.title, line.text),
        };
        Ok(Self { name, queries, documents: corpus.into_iter().map(whole).collect() })
    }
}

#[derive(Default)]
struct Scores {
    ndcg: f64,
    recall_10: f64,
    recall_100: f64,
    mrr: f64,
}

impl Scores {
    fn mean(set: &Set, rankings: &[Vec<Hit>]) -> Self {
        let mut sum = Self::default();
        let share = 1.0 / set.queries.len().max(1) as f64;
        for (query, passages) in set.queries.iter().zip(rankings) {
            let ranking = rank_documents(passages, DEPTH, |key| key >> 20);
            let gains: Vec<f64> =
                ranking.iter().map(|hit| query.relevant.get(&hit.key).copied().unwrap_or(0.0)).collect();
            let mut ideal: Vec<f64> = query.relevant.values().copied().collect();
            ideal.sort_by(|a, b| b.total_cmp(a));
            let recall = |k| gains.iter().take(k).filter(|gain| **gain > 0.0).count() as f64 / ideal.len() as f64;
            let first = gains.iter().position(|gain| *gain > 0.0);
            sum.ndcg += share * discounted(&gains) / discounted(&ideal);
            sum.recall_10 += share * recall(10);
            sum.recall_100 += share * recall(100);
            sum.mrr += share * first.map_or(0.0, |place| 1.0 / (place + 1) as f64);
        }
        sum
    }
}

impl std::fmt::Display for Scores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ndcg, recall_10, recall_100, mrr } = self;
        write!(f, "{ndcg:.4} | {recall_10:.4} | {recall_100:.4} | {mrr:.4}")
    }
}

/// Discounted cumulative gain of the first ten.
fn discounted(gains: &[f64]) -> f64 {
    gains.iter().take(10).enumerate().map(|(place, gain)| gain / (place as f64 + 2.0).log2()).sum()
}

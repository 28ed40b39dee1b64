//! The store: verbs, formats, damage, crashes, faults, several processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod crash;
mod damage;
mod disk;
mod encoders;
mod format;
mod fuzz;
mod model;
#[path = "../mutator/mod.rs"]
mod mutator;
mod open;
mod transfer;
mod verbs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lloco_core::store::{EncoderInfo, LocalStore, NewDocument, Pending, Precision, Shard, Store, SummaryRows};

/// A temporary directory, in memory where the system has such a place: there, syncing is cheap.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Segments of 4 tokens to 2 vectors of 3.
fn encoder() -> EncoderInfo {
    EncoderInfo::new("weights+tokenizer", 4, 2, 3).precision(Precision::F32)
}

/// One token for each byte.
fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// Made-up rows that depend on everything a summary depends on: the segment's key does.
fn rows(encoder: &EncoderInfo, key: &lloco_core::Digest) -> SummaryRows {
    let (rows, hidden) = (encoder.summary_length as usize, encoder.hidden as usize);
    let values = key.bytes().iter().cycle().map(|byte| f32::from(*byte) / 64.0 - 2.0);
    SummaryRows::new(rows, hidden, values.take(rows * hidden).collect()).unwrap()
}

/// Compresses one document; stops after `limit` segments. Returns how many were computed.
fn compress_some(store: &impl Store, encoder: &EncoderInfo, work: &Pending, limit: usize) -> usize {
    let tokens = tokens(&store.text(&work.text).unwrap());
    let segments: Vec<&[u32]> = tokens.chunks(encoder.segment_length as usize).collect();
    let mut encoding = store.begin(work, encoder, &segments).unwrap();
    let mut computed = 0;
    while !encoding.is_complete() && computed < limit {
        let rows = rows(encoder, &encoding.segments()[encoding.done()].key);
        let stored = store.put_segment(&mut encoding, &rows).unwrap();
        assert_eq!(stored, encoder.precision.round(&rows).unwrap());
        computed += 1;
    }
    if encoding.is_complete() {
        store.commit(&encoding).unwrap();
    }
    computed
}

/// Compresses whatever waits. Returns how many segments were computed.
fn compress(store: &impl Store, encoder: &EncoderInfo) -> usize {
    let pending = store.pending(encoder, Shard::ALL).unwrap();
    pending.iter().map(|work| compress_some(store, encoder, work, usize::MAX)).sum()
}

/// The rows that compressing this text must give.
fn expected(encoder: &EncoderInfo, text: &str) -> Vec<f32> {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path().join("expected")).unwrap();
    store.add(&NewDocument::new("x", text)).unwrap();
    compress(&store, encoder);
    store.summary("x", encoder).unwrap().into_data()
}

/// A directory with the two files that PEFT needs.
fn adapter(directory: &Path, weights: &[u8]) -> PathBuf {
    let path = directory.join(format!("adapter-{}", lloco_core::Digest::of(weights)));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("adapter_config.json"), br#"{"r": 8}"#).unwrap();
    std::fs::write(path.join("adapter_model.safetensors"), weights).unwrap();
    path
}

/// All that a reader sees.
#[derive(Debug, PartialEq)]
struct Seen {
    documents: BTreeMap<String, SeenDocument>,
    adapters: BTreeMap<String, (u32, Vec<u8>)>,
}

#[derive(Debug, PartialEq)]
struct SeenDocument {
    group: String,
    title: String,
    text: String,
    newer_text: Option<String>,
    summary: Option<Vec<f32>>,
}

fn seen(store: &LocalStore) -> Seen {
    let mut documents = BTreeMap::new();
    for document in store.documents(None).unwrap() {
        let summary = document.summary.map(|shown| store.summary(&document.id, &shown.encoder).unwrap().into_data());
        let newer_text = document.staged.map(|staged| store.text(&staged.text).unwrap());
        let text = store.text(&document.text).unwrap();
        let (group, title) = (document.group, document.title);
        documents.insert(document.id, SeenDocument { group, title, text, newer_text, summary });
    }
    let mut adapters = BTreeMap::new();
    for group in store.groups().unwrap() {
        if let Some(adapter) = store.adapter(&group.name).unwrap() {
            let weights = std::fs::read(adapter.path.join("adapter_model.safetensors")).unwrap();
            adapters.insert(group.name, (adapter.version, weights));
        }
    }
    Seen { documents, adapters }
}

/// Every file below a directory but the catalogue, relative.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut queue = vec![root.to_path_buf()];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.retain(|path| path != "catalog.redb");
    found.sort();
    found
}

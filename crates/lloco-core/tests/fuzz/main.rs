//! Files of every kind that is read, changed at random: each is read or refused, without a panic and without memory
//! that its size does not warrant. The files of a store have their tests in `tests/store`, those of documents in
//! `tests/reader`. Seeded; `LLOCO_FUZZ_SECONDS=10` gives each test ten seconds.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;
#[path = "../mutator/mod.rs"]
mod mutator;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use lloco_core::{Device, dataset};
use lloco_decoder::{Checkpoint, Decoder, Message, WeightType, gguf::Gguf};
use lloco_encoder::{Compressor, EncoderConfig, Mode, Reader};
use lloco_lora::{Adapter, LoraConfig, StoredType};
use lloco_retrieval::{DenseIndex, Embedder, Embeddings, RowType};
use mutator::{Mutator, time};

/// Most that may be asked for at once. The files have less than a megabyte.
const MEMORY: usize = 64 << 20;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn cpu() -> Device {
    lloco_core::device("cpu").unwrap()
}

/// The files of a directory and those below it.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(place) = rest.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => rest.push(path),
                false => {
                    let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                    found.push((name, fs::read(path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

/// Reads `good` as it is, then with one of its files changed, until time is over. Most changes of a large file go to
/// its beginning, where what describes the rest stands.
fn fuzz(good: &[(String, Vec<u8>)], read: impl Fn(&Path) -> bool) {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A new file, as a mapping of the old one may still exist.
        fs::remove_file(&path).unwrap_or_default();
        fs::write(path, bytes).unwrap();
    };
    good.iter().for_each(|(name, bytes)| write(name, bytes));
    assert!(read(directory.path()), "the unchanged files are read");
    let (mut mutator, start) = (Mutator(11), Instant::now());
    let (mut runs, mut refused) = (0, 0);
    while start.elapsed() < time() || runs < 20 {
        let (name, bytes) = &good[mutator.below(good.len())];
        let head = if mutator.below(4) > 0 { bytes.len().min(2048) } else { bytes.len() };
        let mut changed = bytes[..head].to_vec();
        mutator.mutate(&mut changed);
        changed.extend_from_slice(&bytes[head..]);
        write(name, &changed);
        refused += usize::from(!read(directory.path()));
        runs += 1;
        write(name, bytes);
        assert!(memory::largest() < MEMORY, "{} bytes at once for {name}", memory::largest());
    }
    assert!(refused > 0, "none of {runs} was refused");
}

#[test]
fn checkpoints() {
    let mut good = files(&repository("testdata/goldens/smollm-gqa-tied"));
    good.retain(|(name, _)| ["config.json", "model.safetensors"].contains(&name.as_str()));
    let template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}";
    let settings = serde_json::json!({"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": "</s>"});
    good.push(("tokenizer_config.json".into(), serde_json::to_vec(&settings).unwrap()));
    good.extend(
        files(&repository("crates/lloco-retrieval/tests/data/tiny-bert"))
            .into_iter()
            .filter(|(name, _)| name == "tokenizer.json"),
    );
    fuzz(&good, |directory| {
        let template = lloco_decoder::ChatTemplate::from_directory(directory).map(|template| {
            template.map(|template| template.render(&[Message::user("Hello")], true).map(|text| text.len()))
        });
        let Ok(checkpoint) = Checkpoint::open(directory) else { return false };
        let tokenizer = checkpoint.tokenizer();
        if let Ok(tokenizer) = &tokenizer {
            let _ = tokenizer.encode("Some words").map(|ids| tokenizer.decode(&ids));
        }
        let decoder = Decoder::load(&checkpoint, WeightType::F32, &cpu());
        template.is_ok() && decoder.is_ok()
    });
}

#[test]
fn gguf_files() {
    let read = |directory: &Path| {
        let path = directory.join("model.gguf");
        let Ok(file) = Gguf::open(&path) else { return false };
        let metadata = file.keys().filter(|key| file.metadata(key).is_ok()).count();
        let tensors = file.tensors().filter(|tensor| file.tensor_values(tensor.name()).is_ok()).count();
        if let Ok(tokenizer) = lloco_decoder::Tokenizer::from_gguf(&file) {
            let _ = tokenizer.encode("Some words").map(|ids| tokenizer.decode(&ids));
        }
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            let _ = Decoder::load(&checkpoint, WeightType::Auto, &cpu());
        }
        metadata + tensors > 0
    };
    for name in ["blocks", "sentence_piece", "byte_level_smollm"] {
        let path = repository(&format!("crates/lloco-decoder/tests/data/{name}.gguf"));
        fuzz(&[("model.gguf".into(), fs::read(path).unwrap())], read);
    }
}

#[test]
fn adapters() {
    let golden = repository("testdata/goldens/smollm-gqa-tied");
    let model = Checkpoint::open(&golden).unwrap();
    fuzz(&files(&golden.join("adapter")), |directory| Adapter::load(directory, model.config(), &cpu()).is_ok());
}

#[test]
fn trained_compressors() {
    let checkpoint = Checkpoint::open(repository("testdata/goldens/llama2-mha")).unwrap();
    let decoder = Decoder::load(&checkpoint, WeightType::F32, &cpu()).unwrap();
    let lengths = EncoderConfig { segment_length: 16, summary_length: 2, accumulate_summary: true };
    let mode = Mode::AutoCompressor(lengths);
    let compressor = Compressor::init(mode, LoraConfig::default(), Reader::Shared, &decoder, "base", 1).unwrap();
    let saved = tempfile::tempdir().unwrap();
    compressor.save(saved.path().join("c"), StoredType::F32, &[]).unwrap();
    fuzz(&files(&saved.path().join("c")), |directory| Compressor::load(directory, &decoder, "base").is_ok());
}

#[test]
fn data_sets() {
    let question = serde_json::json!({"id": "q", "question": "Which valve?", "answers": ["red", "the red one"]});
    let line = serde_json::json!({"id": "d", "title": "T", "text": "Open the red valve.", "questions": [question]});
    let text = format!("{line}\n\n{line}\n").replacen("\"d\"", "\"e\"", 1);
    fuzz(&[("data.jsonl".into(), text.into_bytes())], |directory| dataset::read(directory.join("data.jsonl")).is_ok());
}

#[test]
fn dense_indexes() {
    for row_type in [RowType::F16, RowType::I8] {
        let saved = tempfile::tempdir().unwrap();
        let path = saved.path().join("dense.index");
        let mut index = DenseIndex::new(3, "fingerprint", row_type).unwrap();
        let rows = |first: f32| Embeddings::new(3, (0..30).map(|n| first + n as f32 / 30.0).collect()).unwrap();
        index.add(&(0..10).collect::<Vec<u64>>(), &rows(0.0)).unwrap();
        index.save(&path).unwrap();
        index.remove(&[3, 4]);
        index.add(&(10..20).collect::<Vec<u64>>(), &rows(1.0)).unwrap();
        index.commit().unwrap();
        fuzz(&files(saved.path()), |directory| {
            let Ok(mut index) = DenseIndex::open(directory.join("dense.index"), "fingerprint") else { return false };
            // A file may say any number of dimensions; a query of so many is the caller's.
            let asked = index.search(&vec![1.0; index.dim().min(1 << 16)], 3);
            let changed = index.add(&[7], &Embeddings::new(3, vec![0.5; 3]).unwrap()).and_then(|()| index.commit());
            asked.is_ok() && changed.is_ok() && index.verify().is_ok()
        });
    }
}

#[cfg(feature = "bm25")]
#[test]
fn keyword_indexes() {
    use lloco_retrieval::KeywordIndex;
    let saved = tempfile::tempdir().unwrap();
    let mut index = KeywordIndex::create(saved.path().join("keyword")).unwrap();
    index.update(&[], [(1, "The pump stands in the cellar."), (2, "The roof leaks.")]).unwrap();
    index.update(&[2], [(3, "Another pump")]).unwrap();
    fuzz(&files(saved.path()), |directory| {
        let Ok(index) = KeywordIndex::open(directory.join("keyword")) else { return false };
        index.search("pump", 3, None).is_ok() && index.keys().is_ok()
    });
}

#[test]
fn embedders() {
    fuzz(&files(&repository("crates/lloco-retrieval/tests/data/tiny-bert")), |directory| {
        let Ok(embedder) = Embedder::load(directory, &cpu()) else { return false };
        embedder.embed_query("Where is the pump?").is_ok()
    });
}

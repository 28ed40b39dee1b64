//! `compress` and `generate` agree with PyTorch on every folder of reference outputs.
//!
//! `LLOCO_GOLDENS` names another directory of such folders.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{json, repository, text};
use safetensors::SafeTensors;
use serde_json::Value;

/// A folder of reference outputs, and a directory for ours.
struct Golden {
    folder: PathBuf,
    cases: Value,
    work: tempfile::TempDir,
}

fn goldens() -> Vec<Golden> {
    let directory = std::env::var_os("LLOCO_GOLDENS").map_or_else(|| repository("testdata/goldens"), PathBuf::from);
    let folders = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let golden = |folder: PathBuf| {
        let cases = serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap();
        Golden { folder, cases, work: tempfile::tempdir().unwrap() }
    };
    let found: Vec<_> = folders.filter(|folder| folder.join("cases.json").exists()).map(golden).collect();
    assert!(!found.is_empty(), "no reference outputs found");
    found
}

impl Golden {
    /// Compresses the document; the report, and the file of summary vectors.
    fn compress(&self, more: &[&str]) -> (Value, PathBuf) {
        let (segment, summary) = (self.cases["segment_length"].to_string(), self.cases["summary_length"].to_string());
        let (cases, out) = (self.folder.join("cases.json"), self.work.path().join("summary.safetensors"));
        let given = ["--model", text(&self.folder), "--token-ids", text(&cases), "--out", text(&out)];
        let lengths = ["--segment-length", &segment, "--summary-length", &summary, "--weights", "f32"];
        (json("compress", &[given.as_slice(), &lengths, more].concat()), out)
    }

    /// Twelve greedy tokens behind the prompt.
    fn generate(&self, more: &[&str]) -> Value {
        let ids = self.work.path().join("prompt.json");
        fs::write(&ids, self.cases["prompt_ids"].to_string()).unwrap();
        let given = ["--model", text(&self.folder), "--token-ids", text(&ids), "--max-new-tokens", "12"];
        json("generate", &[given.as_slice(), &["--weights", "f32"], more].concat())
    }
}

/// A tensor's shape and values.
fn tensor(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    (view.shape().to_vec(), view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

#[test]
fn parity_of_compress() {
    for golden in goldens() {
        for (more, name) in [(&[][..], "softprompt"), (&["--no-accumulate"], "softprompt_no_accumulate")] {
            let (report, out) = golden.compress(more);
            let (shape, rows) = tensor(&out, "softprompt");
            let (expected_shape, expected) = tensor(&golden.folder.join("expected.safetensors"), name);
            assert_eq!(shape, expected_shape);
            let worst = rows.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{} {name}: differs by {worst:e}", golden.folder.display());

            let tokens = golden.cases["document_ids"].as_array().unwrap().len();
            assert_eq!(
                (report["tokens"].as_u64(), report["summary_vectors"].as_u64()),
                (Some(tokens as u64), Some(shape[0] as u64))
            );
            let ratio = tokens as f64 / shape[0] as f64;
            assert!((report["ratio"].as_f64().unwrap() - ratio).abs() < 1e-9, "{}", report["ratio"]);
            assert!(report["tokens_per_second"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn parity_of_generate() {
    for golden in goldens() {
        let (report, summary) = golden.compress(&[]);
        let (summary, adapter) = (["--summary", text(&summary)], golden.folder.join("adapter"));
        let with_adapter = [&summary[..], &["--adapter", text(&adapter)]].concat();
        let prompt = golden.cases["prompt_ids"].as_array().unwrap().len() as u64;
        let vectors = report["summary_vectors"].as_u64().unwrap();
        let cases = [
            ("greedy_no_context", &[][..], prompt),
            ("greedy_no_adapter", &summary, prompt + vectors),
            ("greedy_adapter", &with_adapter, prompt + vectors),
        ];
        for (name, more, positions) in cases {
            let report = golden.generate(more);
            assert_eq!(report["token_ids"], golden.cases[name], "{} {name}", golden.folder.display());
            assert_eq!((&report["text"], report["prompt_positions"].as_u64()), (&Value::Null, Some(positions)));
        }
    }
}

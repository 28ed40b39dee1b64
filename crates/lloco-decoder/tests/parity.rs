//! The model agrees with PyTorch on every folder of reference outputs.
//!
//! `LLOCO_GOLDENS` names another directory of such folders.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use lloco_decoder::{
    Checkpoint, Decoder, GenerateConfig, KvCache, NoAdapter, Pass, Prompt, WeightType,
    burn::tensor::{Device, Tensor, TensorData},
};
use safetensors::SafeTensors;
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    prompt_ids: Vec<u32>,
    greedy_no_adapter: Vec<u32>,
    greedy_no_context: Vec<u32>,
}

struct Golden {
    name: String,
    decoder: Decoder,
    cases: Cases,
    /// `[n, hidden]`.
    softprompt: Tensor<2>,
    /// `[prompt, vocab]` behind the softprompt.
    logits: Vec<f32>,
}

fn folders() -> Vec<PathBuf> {
    let dir = std::env::var_os("LLOCO_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens"), PathBuf::from);
    let mut folders: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.join("cases.json").exists());
    folders.sort();
    assert!(!folders.is_empty(), "no reference outputs found");
    folders
}

fn goldens() -> impl Iterator<Item = Golden> {
    folders().into_iter().map(|folder| {
        let device = Device::flex();
        let decoder = Decoder::load(&Checkpoint::open(&folder).unwrap(), WeightType::F32, &device).unwrap();
        let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let read = |name: &str| -> (Vec<f32>, Vec<usize>) {
            let view = expected.tensor(name).unwrap();
            let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (values, view.shape().to_vec())
        };
        let (rows, shape) = read("softprompt");
        Golden {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            decoder,
            cases: serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap(),
            softprompt: Tensor::from_data(TensorData::new(rows, shape), &device),
            logits: read("logits_no_adapter").0,
        }
    })
}

impl Golden {
    fn prompt(&self) -> Prompt {
        Prompt::new().embeddings(self.softprompt.clone()).text(&self.cases.prompt_ids)
    }

    fn full_logits(&self) -> Vec<f32> {
        let input = self.decoder.embed_prompt(&self.prompt(), &NoAdapter).unwrap();
        let pass = Pass::new().last_rows(self.cases.prompt_ids.len());
        let hidden = self.decoder.forward(input, pass).unwrap();
        values(self.decoder.logits(hidden))
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: differs by {worst:e}, allowed {tolerance:e}");
}

#[test]
fn parity_of_logits_behind_a_softprompt() {
    for golden in goldens() {
        assert_close(&golden.full_logits(), &golden.logits, 1e-4, &golden.name);
    }
}

#[test]
fn parity_of_greedy_tokens() {
    for golden in goldens() {
        let generate = |prompt: &Prompt, expected: &[u32]| {
            let config = GenerateConfig::greedy(expected.len());
            let tokens = golden.decoder.generate(prompt, &config, NoAdapter).unwrap();
            assert_eq!(tokens.map(Result::unwrap).collect::<Vec<_>>(), expected, "{}", golden.name);
        };
        generate(&golden.prompt(), &golden.cases.greedy_no_adapter);
        generate(&Prompt::new().text(&golden.cases.prompt_ids), &golden.cases.greedy_no_context);
    }
}

#[test]
fn parity_of_cached_and_full_forward() {
    for golden in goldens() {
        let input = golden.decoder.embed_prompt(&golden.prompt(), &NoAdapter).unwrap();
        let positions = input.dims()[1];
        // A cache that is too small has to grow on the way.
        let mut cache = KvCache::new(&golden.decoder, 1, 4);
        let mut rows = Vec::new();
        for (start, end) in [(0, 5), (5, 6), (6, 7), (7, positions)] {
            let chunk = input.clone().slice([0..1, start..end]);
            rows.push(golden.decoder.forward(chunk, Pass::new().cache(&mut cache)).unwrap());
        }
        assert_eq!(cache.len(), positions);
        let full = golden.decoder.forward(input, Pass::new()).unwrap();
        assert_close(&values(Tensor::cat(rows, 1)), &values(full), 1e-4, &golden.name);
    }
}

#[test]
fn parity_of_truncated_and_fresh_cache() {
    for golden in goldens() {
        let ids = &golden.cases.prompt_ids;
        let read = |ids: &[u32], cache: &mut KvCache| {
            let input = golden.decoder.embed(ids).unwrap();
            values(golden.decoder.forward(input, Pass::new().cache(cache).last_rows(1)).unwrap())
        };
        let mut cache = KvCache::new(&golden.decoder, 1, 64);
        let expected = read(ids, &mut cache);
        cache.truncate(3);
        assert_close(&read(&ids[3..], &mut cache), &expected, 1e-4, &golden.name);
    }
}

#[test]
fn parity_of_batch_and_single() {
    for golden in goldens() {
        let prompts = [golden.prompt(), Prompt::new().text(&golden.cases.prompt_ids)];
        let config = GenerateConfig::greedy(golden.cases.greedy_no_adapter.len());
        let answers = golden.decoder.generate_batch(&prompts, &config, &NoAdapter).unwrap();
        assert_eq!(answers, [golden.cases.greedy_no_adapter, golden.cases.greedy_no_context], "{}", golden.name);
    }
}

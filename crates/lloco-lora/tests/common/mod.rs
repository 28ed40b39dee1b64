//! Tiny models and the Python original's outputs, shared by the tests.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod child;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, LinearAdapter, Pass, Prompt, WeightType,
    burn::tensor::{Device, Tensor, TensorData},
};
use lloco_lora::{Adapter, Example, LoraConfig, SummaryVectors};
use safetensors::SafeTensors;
use serde::Deserialize;

/// `cases.json`.
#[derive(Deserialize)]
pub(crate) struct Cases {
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) answer_ids: Vec<u32>,
    pub(crate) greedy_adapter: Vec<u32>,
    pub(crate) finetune: Finetune,
}

#[derive(Deserialize)]
pub(crate) struct Finetune {
    pub(crate) losses: Vec<f64>,
}

/// One folder of reference outputs.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) decoder: Decoder,
    pub(crate) cases: Cases,
    expected: BTreeMap<String, (Vec<f32>, Vec<usize>)>,
}

impl Golden {
    /// The reference values of a tensor.
    pub(crate) fn values(&self, name: &str) -> &[f32] {
        &self.expected[name].0
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.expected.keys().map(String::as_str)
    }

    pub(crate) fn softprompt(&self) -> SummaryVectors {
        let (values, shape) = &self.expected["softprompt"];
        SummaryVectors::new(values.clone(), shape[1]).unwrap()
    }

    pub(crate) fn adapter(&self) -> Adapter {
        Adapter::load(self.folder.join("adapter"), self.decoder.config(), &Device::flex()).unwrap()
    }

    /// The one example of the reference's finetuning.
    pub(crate) fn example(&self) -> Example {
        let Cases { prompt_ids, answer_ids, .. } = &self.cases;
        Example::new("golden", prompt_ids.clone(), answer_ids.clone()).with_prefix(self.softprompt())
    }

    pub(crate) fn prompt(&self) -> Prompt {
        Prompt::new().embeddings(self.softprompt().to_tensor(&Device::flex())).text(&self.cases.prompt_ids)
    }
}

fn read(path: &Path) -> BTreeMap<String, (Vec<f32>, Vec<usize>)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (name.to_owned(), (values, view.shape().to_vec()))
    });
    tensors.collect()
}

/// All folders: those of the repository, or those of the directory that `LLOCO_GOLDENS` names.
pub(crate) fn goldens() -> impl Iterator<Item = Golden> {
    let dir = std::env::var_os("LLOCO_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens"), PathBuf::from);
    let mut folders: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.join("cases.json").exists());
    folders.sort();
    assert!(!folders.is_empty(), "no reference outputs found");
    folders.into_iter().map(|folder| {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        Golden {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            decoder: Decoder::load(&checkpoint, WeightType::F32, &Device::flex()).unwrap(),
            cases: serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap(),
            expected: read(&folder.join("expected.safetensors")),
            folder,
        }
    })
}

/// A model with grouped queries and an untied head, two layers, random weights.
pub(crate) fn tiny_config() -> DecoderConfig {
    let json = r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5}"#;
    DecoderConfig::from_json(json, "config.json".as_ref()).unwrap()
}

pub(crate) fn tiny_decoder() -> Decoder {
    Decoder::load(&Checkpoint::random(tiny_config(), 3), WeightType::F32, &Device::flex()).unwrap()
}

/// An adapter whose B is not zero.
pub(crate) fn busy_adapter(config: &LoraConfig, seed: u64) -> Adapter {
    let device = Device::flex();
    let adapter = Adapter::init(config, &tiny_config(), seed, &device).unwrap();
    adapter.map(|name, tensor| match name.ends_with("lora_B.weight") {
        true => noise(tensor.dims(), seed + name.len() as u64).mul_scalar(0.3),
        false => tensor,
    })
}

/// Values in -1..1 that look random.
pub(crate) fn noise<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let mut state = seed;
    let values = (0..len).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), &Device::flex())
}

/// Examples of unequal summaries, prompts and answers.
pub(crate) fn examples(count: usize) -> Vec<Example> {
    let ids = |n: usize, seed: usize| (0..n).map(|i| ((i * 31 + seed * 17 + 5) % 96) as u32).collect::<Vec<u32>>();
    let example = |i: usize| {
        let example = Example::new(format!("example {i}"), ids(2 + i % 4, i), ids(1 + i * 3 % 5, i + 50));
        // Of none, three, seven or one summary vectors.
        match [0, 3, 7, 1][i % 4] {
            0 => example,
            n => example.with_prefix(SummaryVectors::from_tensor(noise([n, 32], i as u64)).unwrap()),
        }
    };
    (0..count).map(example).collect()
}

pub(crate) fn logits(decoder: &Decoder, input: Tensor<3>, adapter: &dyn LinearAdapter) -> Vec<f32> {
    let hidden = decoder.forward(input, Pass::new().adapter(adapter)).unwrap();
    decoder.logits_with(hidden, adapter).into_data().try_into_vec().unwrap()
}

pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec().unwrap()
}

pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The largest difference of two lists.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    largest(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

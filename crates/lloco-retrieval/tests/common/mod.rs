//! What several test files use: the tiny model, changed copies of it, vector arithmetic.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test file uses its part")]

use lloco_retrieval::burn::tensor::Device;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn device() -> Device {
    Device::flex()
}

/// The tiny random model's directory.
pub(crate) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-bert")
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A copy of the tiny model in a directory of its own, to be changed.
pub(crate) struct Copy(tempfile::TempDir);

impl Copy {
    pub(crate) fn of_tiny() -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        fs::create_dir(copy.path().join("1_Pooling")).unwrap();
        for file in [
            "1_Pooling/config.json",
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "tokenizer.json",
        ] {
            fs::copy(tiny().join(file), copy.path().join(file)).unwrap();
        }
        copy
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).unwrap();
    }

    pub(crate) fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), bytes).unwrap();
    }

    /// Sets one field of a JSON object file.
    pub(crate) fn set(&self, file: &str, field: &str, value: serde_json::Value) {
        let path = self.path().join(file);
        let mut object: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        object[field] = value;
        fs::write(&path, object.to_string()).unwrap();
    }

    /// Writes the weights anew under other names and as another type.
    pub(crate) fn rewrite_weights(&self, rename: impl Fn(&str) -> String, dtype: Dtype) {
        let path = self.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let converted: Vec<_> = tensors
            .iter()
            .map(|(name, view)| {
                let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                let data: Vec<u8> = match dtype {
                    Dtype::F32 => view.data().to_vec(),
                    Dtype::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                    Dtype::BF16 => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                    _ => vec![0; values.len() * dtype.bitsize() / 8],
                };
                (rename(name), view.shape().to_vec(), data)
            })
            .collect();
        let views = converted.iter().map(|(name, shape, data)| {
            let view = TensorView::new(dtype, shape.clone(), data).unwrap();
            (name.as_str(), view)
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

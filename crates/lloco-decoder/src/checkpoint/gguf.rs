//! GGUF checkpoints under Hugging Face names.

use std::{collections::BTreeMap, path::Path};

use sha2::{Digest, Sha256};

use crate::{
    DecoderConfig, Error, Result, RopeScaling,
    gguf::{BlockType, Gguf},
};

/// A GGUF file with its tensors by Hugging Face name.
#[derive(Debug)]
pub(super) struct GgufWeights {
    file: Gguf,
    /// Hugging Face name -> name in the file.
    names: BTreeMap<String, String>,
}

impl GgufWeights {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = Gguf::open(path)?;
        let names = file.hub_tensors()?.into_iter().map(|(name, tensor)| (name, tensor.name().to_owned())).collect();
        Ok(Self { file, names })
    }

    pub(super) fn file(&self) -> &Gguf {
        &self.file
    }

    pub(super) fn config(&self) -> Result<DecoderConfig> {
        let mut config = DecoderConfig::from_json(&self.file.hub_config()?, self.file.path())?;
        if let Some(factors) = self.file.rope_factors()? {
            config.rope_scaling = RopeScaling::Factors(factors);
        }
        Ok(config)
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.file.tensor(self.names.get(name)?).ok()?.shape().to_vec())
    }

    pub(super) fn is_f32(&self, name: &str) -> bool {
        let tensor = self.names.get(name).and_then(|name| self.file.tensor(name).ok());
        tensor.is_some_and(|tensor| tensor.kind() == BlockType::F32)
    }

    /// A tensor as f32 with its stored shape; the values are left out where the shape is not as expected.
    pub(super) fn read(&self, name: &str, expected: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let missing = || Error::MissingTensor { path: self.file.path().to_path_buf(), name: name.to_owned() };
        let tensor = self.file.tensor(self.names.get(name).ok_or_else(missing)?)?;
        let values = if tensor.shape() == expected { self.file.hub_values(tensor)? } else { Vec::new() };
        Ok((values, tensor.shape().to_vec()))
    }

    /// Feeds names, types, shapes and bytes of all tensors to `hash`, in order of names.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        for tensor in self.file.tensors() {
            hash.update(format!("{} {:?} {:?}\n", tensor.name(), tensor.kind(), tensor.shape()));
            hash.update(self.file.bytes().get(tensor.range()).unwrap_or_default());
        }
    }
}

//! GGUF checkpoints under Hugging Face names.

#[cfg(feature = "flex")]
use std::borrow::Cow;
use std::{collections::BTreeMap, path::Path};

use sha2::{Digest, Sha256};

#[cfg(feature = "flex")]
use crate::gguf::BlockType;
use crate::{
    DecoderConfig, Error, Result, RopeScaling,
    gguf::{Gguf, TensorInfo},
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

    /// A tensor as f32 with its stored shape; the values are left out where the shape is not as expected.
    pub(super) fn read(&self, name: &str, expected: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let tensor = self.tensor(name)?;
        let values = if tensor.shape() == expected { self.file.hub_values(tensor)? } else { Vec::new() };
        Ok((values, tensor.shape().to_vec()))
    }

    /// How a tensor is stored, and its blocks, rows in Hugging Face order.
    #[cfg(feature = "flex")]
    pub(super) fn blocks(&self, name: &str) -> Result<(BlockType, Cow<'_, [u8]>)> {
        let tensor = self.tensor(name)?;
        Ok((tensor.kind(), self.file.hub_bytes(tensor)?))
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        let missing = || Error::MissingTensor { path: self.file.path().to_path_buf(), name: name.to_owned() };
        self.file.tensor(self.names.get(name).ok_or_else(missing)?)
    }

    /// Feeds names, types, shapes and bytes of all tensors to `hash`, in order of names.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        for tensor in self.file.tensors() {
            hash.update(format!("{} {:?} {:?}\n", tensor.name(), tensor.kind(), tensor.shape()));
            hash.update(self.file.bytes().get(tensor.range()).unwrap_or_default());
            self.file.forget();
        }
    }
}

//! Tensors of a BERT checkpoint, from a memory-mapped safetensors file.

use crate::raw::map::map;
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// What checkpoints put before the names of the encoder's tensors.
const PREFIXES: [&str; 3] = ["", "bert.", "model."];

/// Older checkpoints name the two tensors of a layer norm so.
const RENAMES: [(&str, &str); 2] = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];

/// The bytes of `model.safetensors`.
pub(crate) struct WeightsFile {
    path: PathBuf,
    bytes: Mmap,
}

impl WeightsFile {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("model.safetensors");
        if !path.is_file() {
            let advice = if dir.join("model.safetensors.index.json").is_file() {
                "its weights are sharded: join the shards into one file"
            } else if dir.join("pytorch_model.bin").is_file() {
                "its weights are pickled: load `pytorch_model.bin` in PyTorch and save the \
                 state dict with `safetensors.torch.save_file`"
            } else {
                "download the model's safetensors weights"
            };
            return Err(Error::MissingFile { directory: dir.to_owned(), file: "model.safetensors", advice });
        }
        let bytes = map(&path)?;
        Ok(Self { path, bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the header; tensors are found under the prefix that this file uses.
    pub(crate) fn tensors(&self) -> Result<Weights<'_>> {
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|e| Error::malformed(&self.path, e))?;
        let probe = "embeddings.word_embeddings.weight";
        let prefix = PREFIXES
            .into_iter()
            .find(|prefix| tensors.tensor(&format!("{prefix}{probe}")).is_ok())
            .ok_or_else(|| Error::MissingTensor { path: self.path.clone(), tensor: probe.to_owned() })?;
        Ok(Weights { path: &self.path, tensors, prefix })
    }
}

/// The named tensors of a [`WeightsFile`].
pub(crate) struct Weights<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    prefix: &'static str,
}

impl Weights<'_> {
    /// The tensor `name`, as f32 whatever the file holds.
    ///
    /// # Errors
    /// It is absent, of another shape than `shape`, or not of a floating-point type.
    pub(crate) fn load<const D: usize>(&self, name: &str, shape: [usize; D], device: &Device) -> Result<Tensor<D>> {
        let view = self.find(name)?;
        if view.shape() != shape {
            return Err(Error::TensorShape {
                path: self.path.to_owned(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: view.shape().to_vec(),
            });
        }
        let bytes = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => words(bytes).map(f32::from_le_bytes).collect(),
            Dtype::F16 => words(bytes).map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => words(bytes).map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => {
                return Err(Error::TensorType {
                    path: self.path.to_owned(),
                    tensor: name.to_owned(),
                    found: format!("{other:?}"),
                });
            }
        };
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    fn find(&self, name: &str) -> Result<safetensors::tensor::TensorView<'_>> {
        let name = format!("{}{name}", self.prefix);
        let renamed = RENAMES.iter().find_map(|(new, old)| Some(format!("{}{old}", name.strip_suffix(new)?)));
        self.tensors
            .tensor(&name)
            .or_else(|error| match &renamed {
                Some(renamed) => self.tensors.tensor(renamed),
                None => Err(error),
            })
            .map_err(|_| Error::MissingTensor { path: self.path.to_owned(), tensor: name })
    }
}

/// The little-endian words of `bytes`.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

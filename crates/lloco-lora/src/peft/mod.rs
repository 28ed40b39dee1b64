//! Adapters in PEFT's directory layout: `adapter_config.json` and `adapter_model.safetensors`.

mod config;
mod names;

use std::path::Path;

use burn::tensor::Device;
use lloco_decoder::DecoderConfig;

use crate::{Adapter, Error, Result, StoredType, directory::Draft, tensor_file};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

impl Adapter {
    /// Reads an adapter that PEFT or [`save`](Self::save) wrote, for a model of shape `model`.
    ///
    /// Weights may be f32, f16 or bf16. Options that would change what the adapter computes and that this crate does
    /// not implement (DoRA, trained biases, ...) are errors; so is every option that it does not know.
    ///
    /// # Errors
    /// When a file is missing or damaged, an option is not supported, or the tensors do not fit the model.
    pub fn load(dir: impl AsRef<Path>, model: &DecoderConfig, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let config = config::read(&dir.join(CONFIG))?;
        let path = dir.join(WEIGHTS);
        let pickled = dir.join("adapter_model.bin");
        if !path.exists() && pickled.exists() {
            return Err(Error::Pickled { path: pickled });
        }
        let tensors = names::to_parameters(tensor_file::read(&path)?, &path)?;
        Self::from_parameters(config, model, tensors, &path, device).map_err(|e| match e {
            Error::Unsupported { field, value, expected, .. } => {
                Error::Unsupported { path: dir.join(CONFIG), field, value, expected }
            }
            other => other,
        })
    }

    /// Writes the adapter as a directory that PEFT reads. It appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Exists`] when `dir` is there already, [`Error::MissingTensor`] when a module of `modules_to_save`
    /// has no weight, [`Error::Io`] when writing fails.
    pub fn save(&self, dir: impl AsRef<Path>, stored: StoredType) -> Result<()> {
        let draft = Draft::new(dir.as_ref())?;
        for (name, bytes) in self.files(stored, dir.as_ref())? {
            draft.write(name, &bytes)?;
        }
        draft.publish()
    }

    /// The directory's files by name.
    pub(crate) fn files(&self, stored: StoredType, dir: &Path) -> Result<[(&'static str, Vec<u8>); 2]> {
        let path = dir.join(WEIGHTS);
        if let Some(module) = self.config.modules_to_save.iter().find(|module| self.saved(module).is_none()) {
            return Err(Error::MissingTensor { path, name: module.clone() });
        }
        let tensors = self.parameters().into_iter().map(|(name, tensor)| (names::stored(&name), tensor)).collect();
        Ok([(CONFIG, config::write(&self.config)), (WEIGHTS, tensor_file::write(&tensors, stored, &path)?)])
    }
}

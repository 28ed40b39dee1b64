//! Tensor names in PEFT files.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::TensorData;

use crate::{Error, Result};

/// What PEFT writes before the names of the model's own modules.
const PREFIX: &str = "base_model.model.";

/// The name in a file of a parameter.
pub(crate) fn stored(parameter: &str) -> String {
    format!("{PREFIX}{parameter}")
}

/// Renames a file's tensors to parameter names.
pub(crate) fn to_parameters(
    tensors: BTreeMap<String, TensorData>,
    path: &Path,
) -> Result<BTreeMap<String, TensorData>> {
    let mut parameters = BTreeMap::new();
    for (name, data) in tensors {
        let Some(parameter) = parameter(&name) else {
            return Err(Error::UnexpectedTensor { path: path.to_path_buf(), name });
        };
        if parameters.insert(parameter, data).is_some() {
            let detail = format!("tensor `{name}` is there twice under different spellings");
            return Err(Error::Malformed { path: path.to_path_buf(), detail });
        }
    }
    Ok(parameters)
}

/// The parameter that a file calls `name`. Some versions of PEFT leave the adapter's name in:
/// `lora_A.default.weight`, `embed_summary.modules_to_save.default.weight`.
fn parameter(name: &str) -> Option<String> {
    let name = name.strip_prefix(PREFIX)?;
    let parts: Vec<&str> = name.split('.').collect();
    let kept: Vec<&str> = match parts.as_slice() {
        [front @ .., "modules_to_save", _, "weight"] | [front @ .., "modules_to_save", "weight"] => {
            front.iter().copied().chain(["weight"]).collect()
        }
        [front @ .., factor @ ("lora_A" | "lora_B"), _, "weight"] => {
            front.iter().copied().chain([*factor, "weight"]).collect()
        }
        all => all.to_vec(),
    };
    Some(kept.join("."))
}

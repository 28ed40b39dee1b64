//! The weights of a GGUF file as a checkpoint of plain f32 numbers, which every type of weights has to round.

use std::{fs, path::Path};

use lloco_benches::Result;
use lloco_core::Checkpoint;
use lloco_decoder::gguf::Gguf;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

/// Name, shape and values of a tensor.
pub(crate) type Named = (String, Vec<usize>, Vec<f32>);

/// The tensors of a GGUF file, dequantised, under their Hugging Face names.
///
/// # Errors
/// When the file is damaged, or scales rotary embeddings in a way that a `config.json` cannot say.
pub(crate) fn tensors(gguf: &Gguf) -> Result<Vec<Named>> {
    if gguf.rope_factors()?.is_some() {
        return Err("the file has rotary factors, which a config.json has no field for".into());
    }
    let tensors = gguf.hub_tensors()?.into_iter();
    tensors.map(|(name, tensor)| Ok((name, tensor.shape().to_vec(), gguf.hub_values(tensor)?))).collect()
}

/// Writes the tensors to `dir` as a checkpoint beside the file's configuration, and opens it.
///
/// # Errors
/// When writing or reading fails.
pub(crate) fn checkpoint(gguf: &Gguf, tensors: &[Named], dir: &Path) -> Result<Checkpoint> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    serialize_to_file(views.collect::<Result<Vec<_>>>()?, None, &dir.join("model.safetensors"))?;
    fs::write(dir.join("config.json"), gguf.hub_config()?)?;
    Ok(Checkpoint::open(dir)?)
}

//! Named f32 tensors in one safetensors file.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use burn::tensor::{Tensor, TensorData, bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, Result};

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoredType {
    /// 32-bit floats: exact.
    #[default]
    F32,
    /// 16-bit floats: half the size. Values beyond 65,504 are refused.
    F16,
}

/// Reads all tensors of a safetensors file as f32, whether stored as f32, f16 or bf16.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds other types or values that are not finite.
pub fn read(path: &Path) -> Result<BTreeMap<String, TensorData>> {
    let bytes = fs::read(path).map_err(Error::read(path))?;
    let malformed = |detail: String| Error::Malformed { path: path.to_path_buf(), detail };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(format!("not valid safetensors: {e}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
            other => return Err(malformed(format!("tensor `{name}` is {other}; f32, f16 and bf16 are read"))),
        };
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(malformed(format!("tensor `{name}` holds {} at element {index}", values[index])));
        }
        tensors.insert(name.to_owned(), TensorData::new(values, view.shape()));
    }
    Ok(tensors)
}

/// The bytes of a safetensors file with these tensors; `path` is what errors call it.
///
/// # Errors
/// When values cannot be read back from the device, or are too large for f16.
pub fn write(tensors: &BTreeMap<String, Tensor<2>>, stored: StoredType, path: &Path) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    for (name, tensor) in tensors {
        let shape = tensor.dims().to_vec();
        let values = values(name, tensor.clone())?;
        let bytes: Vec<u8> = match stored {
            StoredType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            StoredType::F16 => {
                let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
                if let Some(index) = halves.iter().position(|half| !half.is_finite()) {
                    return Err(Error::setting(name, values[index], "a value that f16 can hold; store f32 instead"));
                }
                halves.iter().flat_map(|half| half.to_le_bytes()).collect()
            }
        };
        entries.insert(name, (shape, bytes));
    }
    let dtype = match stored {
        StoredType::F32 => Dtype::F32,
        StoredType::F16 => Dtype::F16,
    };
    let malformed =
        |e: safetensors::SafeTensorError| Error::Malformed { path: path.to_path_buf(), detail: e.to_string() };
    let views = entries.iter().map(|(name, (shape, bytes))| Ok((name, TensorView::new(dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(malformed)
}

/// A tensor's values on the host, row by row; `what` is what errors call them.
///
/// # Errors
/// [`Error::Device`] when they cannot be read back from the device.
pub fn values<const D: usize>(what: &str, tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |detail: String| Error::Device { what: what.to_owned(), detail };
    let data = tensor.inner().try_into_data_as::<f32>().map_err(|e| failed(e.to_string()))?;
    data.try_into_vec::<f32>().map_err(|e| failed(format!("{e:?}")))
}

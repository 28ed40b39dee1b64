//! Softprompts as files: one safetensors tensor `softprompt`, `[n, hidden]`, f32.

use std::{collections::HashMap, fs, io, path::Path};

use lloco_decoder::burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use crate::{Error, Result};

/// Version of the file format, in the file's metadata as `lloco.softprompt`.
pub const FORMAT_VERSION: &str = "1";

/// Writes a softprompt `[n, hidden]`, atomically: the file is complete or not there.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: impl AsRef<Path>, softprompt: Tensor<2>) -> Result<()> {
    let path = path.as_ref();
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let malformed = |detail: String| Error::Malformed { path: path.to_path_buf(), detail };
    let shape = softprompt.dims().to_vec();
    let data = softprompt.try_into_data().map_err(|e| malformed(format!("reading the device: {e:?}")))?;
    let values = data.as_slice::<f32>().map_err(|e| malformed(format!("expected f32 rows: {e:?}")))?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    drop(data);
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(|e| malformed(e.to_string()))?;
    let metadata = HashMap::from([("lloco.softprompt".to_owned(), FORMAT_VERSION.to_owned())]);

    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(dir).map_err(io)?.into_temp_path();
    // This puts another file in the temporary one's place, so it is opened again to be synced.
    safetensors::serialize_to_file([("softprompt", view)], Some(metadata), &temporary).map_err(|e| match e {
        SafeTensorError::IoError(source) => io(source),
        e => malformed(e.to_string()),
    })?;
    fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(io)?;
    temporary.persist(path).map_err(|e| io(e.error))?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Reads a softprompt `[n, hidden]` onto `device`.
///
/// # Errors
/// When the file cannot be read, is not safetensors, or holds no f32 tensor `softprompt` of two dimensions.
pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Tensor<2>> {
    let path = path.as_ref();
    let malformed = |detail: String| Error::Malformed { path: path.to_path_buf(), detail };
    let bytes = fs::read(path).map_err(|source: io::Error| Error::Io { path: path.to_path_buf(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(format!("not valid safetensors: {e}")))?;
    let view = file.tensor("softprompt").map_err(|_| malformed("holds no tensor `softprompt`".into()))?;
    match (view.dtype(), view.shape()) {
        (Dtype::F32, &[rows, hidden]) if rows > 0 && hidden > 0 => {
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            Ok(Tensor::from_data(TensorData::new(values, [rows, hidden]), device))
        }
        (dtype, shape) => Err(malformed(format!("`softprompt` is {dtype:?} {shape:?}; expected F32 [n, hidden]"))),
    }
}

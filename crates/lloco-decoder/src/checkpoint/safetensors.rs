//! Safetensors checkpoints: one file, or shards behind an index.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{DecoderConfig, Error, Result, mapping::Mapping};

/// The files of a checkpoint and where each tensor lies in them.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<(PathBuf, Mapping)>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens the safetensors of `dir`, or `None` if there are none.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        let names = if single.exists() {
            BTreeSet::from(["model.safetensors".to_owned()])
        } else if index.exists() {
            shard_names(&index)?
        } else {
            return Ok(None);
        };
        let mut shards = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            shards.add(dir.join(name))?;
        }
        Ok(Some(shards))
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let map = Mapping::open(&path)?;
        let malformed = |detail: String| Error::Malformed { path: path.clone(), detail };
        let parsed = SafeTensors::deserialize(&map).map_err(|e| malformed(format!("not valid safetensors: {e}")))?;
        let start = map.as_ptr() as usize;
        for (name, view) in parsed.iter() {
            let data = view.data();
            let offset = data.as_ptr() as usize - start;
            let bytes = offset..offset + data.len();
            let entry = Entry { file: self.files.len(), dtype: view.dtype(), shape: view.shape().to_vec(), bytes };
            if self.tensors.insert(name.to_owned(), entry).is_some() {
                return Err(malformed(format!("tensor `{name}` is also in another shard")));
            }
        }
        drop(parsed);
        self.files.push((path, map));
        Ok(())
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|entry| entry.shape.clone())
    }

    /// A tensor as f32 with its stored shape; the values are left out where the shape is not as expected.
    pub(super) fn read(&self, name: &str, expected: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let dir = || self.files.first().map(|(path, _)| path.clone()).unwrap_or_default();
        let missing = || Error::MissingTensor { path: dir(), name: name.to_owned() };
        let entry = self.tensors.get(name).ok_or_else(missing)?;
        if entry.shape != expected {
            return Ok((Vec::new(), entry.shape.clone()));
        }
        let (path, map) = self.files.get(entry.file).ok_or_else(missing)?;
        let bytes = map.get(entry.bytes.clone()).ok_or_else(missing)?;
        let values = match entry.dtype {
            Dtype::F32 => convert(bytes, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => convert(bytes, |b| f64::from_le_bytes(b) as f32),
            other => {
                return Err(Error::Unsupported {
                    path: path.clone(),
                    field: format!("dtype of {name}"),
                    value: format!("{other:?}"),
                    supported: "F32, F16, BF16, F64".into(),
                });
            }
        };
        Ok((values, entry.shape.clone()))
    }

    /// Feeds names, types, shapes and bytes of all tensors to `hash`, in order of names.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        for (name, entry) in &self.tensors {
            hash.update(format!("{name} {:?} {:?}\n", entry.dtype, entry.shape));
            let bytes = self.files.get(entry.file).and_then(|(_, map)| map.get(entry.bytes.clone()));
            hash.update(bytes.unwrap_or_default());
            self.forget();
        }
    }

    /// Lets the system have the pages back that were read so far.
    pub(super) fn forget(&self) {
        self.files.iter().for_each(|(_, map)| map.forget());
    }
}

fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}

/// Names of the shard files; only plain file names are allowed.
fn shard_names(index: &Path) -> Result<BTreeSet<String>> {
    let malformed = |detail: String| Error::Malformed { path: index.to_path_buf(), detail };
    let json = fs::read_to_string(index).map_err(|source| Error::Io { path: index.to_path_buf(), source })?;
    let parsed: Index = serde_json::from_str(&json).map_err(|e| malformed(e.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    match names.iter().find(|name| !plain(name)) {
        Some(name) => Err(malformed(format!("shard `{name}` is not a plain file name"))),
        None => Ok(names),
    }
}

/// Adds the stop tokens of `generation_config.json`, where chat models list theirs.
pub(super) fn add_generation_stops(dir: &Path, config: &mut DecoderConfig) -> Result<()> {
    #[derive(Deserialize)]
    struct Generation {
        eos_token_id: Option<serde_json::Value>,
    }
    let path = dir.join("generation_config.json");
    let json = match fs::read_to_string(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { path, source }),
    };
    let parsed: Generation =
        serde_json::from_str(&json).map_err(|e| Error::Malformed { path: path.clone(), detail: e.to_string() })?;
    let ids = match parsed.eos_token_id {
        Some(serde_json::Value::Array(ids)) => ids,
        Some(id) => vec![id],
        None => return Ok(()),
    };
    for id in ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()) {
        if !config.eos_token_ids.contains(&id) {
            config.eos_token_ids.push(id);
        }
    }
    Ok(())
}

//! GGUF files: metadata, tensor directory and quantised blocks over a memory map.
//!
//! Versions 2 and 3, little-endian. [`Gguf`] gives the file as it stands; [`hub`] translates it to the names
//! and conventions of Hugging Face checkpoints, so that the rest of the crate knows one kind of model.

pub mod hub;

mod blocks;
mod reader;
mod vocabulary;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

pub use blocks::BlockType;
#[cfg(feature = "flex")]
pub(crate) use blocks::{q4_k_group, q5_0_numbers};
use reader::{Cursor, Kind};
pub(crate) use vocabulary::{LLAMA3_WORDS, QWEN2_WORDS, SPACE};

use crate::{Error, Result, mapping::Mapping};

/// An open GGUF file. Tensors are paged in when they are read.
///
/// ```no_run
/// # use lloco_decoder::gguf::Gguf;
/// let file = Gguf::open("SmolLM2-135M-Instruct.Q4_1.gguf")?;
/// println!("{:?}, {:?} layers", file.text("general.architecture")?, file.integer("llama.block_count")?);
/// for tensor in file.tensors() {
///     println!("{} {:?} {}", tensor.name(), tensor.shape(), tensor.kind().name());
/// }
/// # Ok::<_, lloco_decoder::Error>(())
/// ```
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mapping,
    version: u32,
    metadata: BTreeMap<String, (Kind, Range<usize>)>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// An entry of the tensor directory.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    kind: BlockType,
    range: Range<usize>,
}

impl TensorInfo {
    /// The tensor's name in the file, for example `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape, slowest dimension first: `[out, in]` for a weight (the file itself counts the other way).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the values are stored.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// Where the blocks stand in the file.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Number of values.
    pub fn values(&self) -> usize {
        self.range.len() / self.kind.block_bytes() * self.kind.block_values()
    }

    /// Bytes of one row, a whole number of blocks.
    pub fn row_bytes(&self) -> usize {
        self.shape.last().map_or(0, |row| row / self.kind.block_values() * self.kind.block_bytes())
    }
}

/// A metadata value.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Any floating-point number. An f32 becomes the shortest decimal that means it, so 1e-5 stays 1e-5.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// Values of one type.
    Array(Array<'a>),
}

/// A metadata array. Its items stay in the file until they are asked for.
#[derive(Debug, Clone)]
pub struct Array<'a> {
    items: Cursor<'a>,
    kind: Kind,
    length: usize,
}

impl<'a> Array<'a> {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        let mut items = self.items.clone();
        (0..self.length).map_while(move |_| items.value(self.kind, "an array item").ok())
    }
}

impl Gguf {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    /// When the file cannot be read; is not GGUF of version 2 or 3; is truncated; has counts, lengths or
    /// offsets that do not fit its size; has tensors that overlap, or of a type that is not in [`BlockType`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let map = Mapping::open(&path)?;
        let mut cursor = Cursor::new(&path, &map, 0);
        if cursor.take(4, "the magic number")? != b"GGUF" {
            return Err(cursor.malformed("it does not start with `GGUF`"));
        }
        let version = cursor.u32("the version")?;
        if !matches!(version, 2 | 3) {
            let value = if version.swap_bytes() <= 3 { "big-endian".into() } else { version.to_string() };
            return Err(cursor.unsupported("version", value, "2 and 3, little-endian"));
        }
        // The shortest tensor entry and the shortest metadata entry.
        let tensor_count = cursor.count(32, "the number of tensors")?;
        let metadata_count = cursor.count(13, "the number of metadata entries")?;

        let mut metadata = BTreeMap::new();
        for _ in 0..metadata_count {
            let key = cursor.text("a metadata key")?.to_owned();
            let kind = cursor.kind(&key)?;
            let range = cursor.skip(kind, &key)?;
            if metadata.insert(key.clone(), (kind, range)).is_some() {
                return Err(cursor.malformed(format!("metadata has `{key}` twice")));
            }
        }
        let alignment = alignment(&cursor, &metadata)?;
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let tensor = cursor.tensor(alignment)?;
            let name = tensor.name.clone();
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(cursor.malformed(format!("tensor `{name}` stands in the directory twice")));
            }
        }
        place(&cursor, alignment, map.len(), &mut tensors)?;
        Ok(Self { version, metadata, tensors, map, path })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All of the file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Lets the system have the pages back that were read so far.
    pub(crate) fn forget(&self) {
        self.map.forget();
    }

    // --- metadata ---

    /// Metadata keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The metadata value of `key`, if the file has it.
    ///
    /// # Errors
    /// When the file changed under the map since it was opened.
    pub fn metadata(&self, key: &str) -> Result<Option<Value<'_>>> {
        let Some((kind, range)) = self.metadata.get(key) else { return Ok(None) };
        Cursor::new(&self.path, &self.map, range.start).value(*kind, key).map(Some)
    }

    /// The text of `key`, if the file has it.
    ///
    /// # Errors
    /// When the value is not a text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata(key)? {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "a text", &other)),
        }
    }

    /// The integer of `key`, if the file has it.
    ///
    /// # Errors
    /// When the value is not an integer of at least 0.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        match self.metadata(key)? {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(value)),
            Some(Value::Signed(value)) if value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(other) => Err(self.wrong(key, "an integer of at least 0", &other)),
        }
    }

    /// The number of `key`, if the file has it.
    ///
    /// # Errors
    /// When the value is not a finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.metadata(key)? {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() => Ok(Some(value)),
            Some(Value::Unsigned(value)) => Ok(Some(value as f64)),
            Some(Value::Signed(value)) => Ok(Some(value as f64)),
            Some(other) => Err(self.wrong(key, "a finite number", &other)),
        }
    }

    /// The flag of `key`, if the file has it.
    ///
    /// # Errors
    /// When the value is not true or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata(key)? {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(key, "true or false", &other)),
        }
    }

    /// The array of `key`, if the file has it.
    ///
    /// # Errors
    /// When the value is not an array.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>> {
        match self.metadata(key)? {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(key, "an array", &other)),
        }
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value<'_>) -> Error {
        let found = match found {
            Value::Array(items) => format!("an array of {}", items.len()),
            Value::Text(text) => format!("a text of {} bytes", text.len()),
            other => format!("{other:?}"),
        };
        self.invalid(key, format!("must be {expected}, found {found}"))
    }

    fn invalid(&self, field: &str, detail: String) -> Error {
        Error::InvalidField { path: self.path.clone(), field: field.into(), detail }
    }

    // --- tensors ---

    /// The tensor directory, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// The directory entry of the tensor `name`.
    ///
    /// # Errors
    /// When the file has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.into() };
        self.tensors.get(name).ok_or_else(missing)
    }

    /// The blocks of the tensor `name`, row after row.
    ///
    /// # Errors
    /// When the file has no such tensor.
    pub fn tensor_bytes(&self, name: &str) -> Result<&[u8]> {
        let range = self.tensor(name)?.range();
        self.map.get(range).ok_or_else(|| Error::Malformed {
            path: self.path.clone(),
            detail: format!("tensor `{name}` ends beyond the file"),
        })
    }

    /// The values of the tensor `name` as f32, row after row.
    ///
    /// # Errors
    /// When the file has no such tensor, or the tensor holds a value that is not finite.
    pub fn tensor_values(&self, name: &str) -> Result<Vec<f32>> {
        let (tensor, blocks) = (self.tensor(name)?, self.tensor_bytes(name)?);
        // Pieces of whole blocks, large enough to be worth a thread.
        const PIECE: usize = 256;
        let (kind, mut values) = (tensor.kind(), vec![0.0; tensor.values()]);
        let finite = blocks
            .par_chunks(PIECE * kind.block_bytes())
            .zip(values.par_chunks_mut(PIECE * kind.block_values()))
            .all(|(blocks, values)| {
                kind.dequantize(blocks, values);
                values.iter().all(|value| value.is_finite())
            });
        if finite {
            return Ok(values);
        }
        Err(Error::Malformed {
            path: self.path.clone(),
            detail: format!("tensor `{name}` holds a value that is not finite"),
        })
    }
}

/// Alignment of the tensor data, in bytes.
fn alignment(cursor: &Cursor<'_>, metadata: &BTreeMap<String, (Kind, Range<usize>)>) -> Result<usize> {
    const KEY: &str = "general.alignment";
    let Some((kind, range)) = metadata.get(KEY) else { return Ok(32) };
    match cursor.moved(range.start).value(*kind, KEY)? {
        Value::Unsigned(value) if value.is_power_of_two() && value <= 1 << 20 => Ok(value as usize),
        other => Err(cursor.malformed(format!("`{KEY}` = {other:?} is not a small power of two"))),
    }
}

/// Makes the ranges absolute and checks them against the file and each other.
fn place(
    cursor: &Cursor<'_>,
    alignment: usize,
    length: usize,
    tensors: &mut BTreeMap<String, TensorInfo>,
) -> Result<()> {
    let data = cursor.position().next_multiple_of(alignment);
    for tensor in tensors.values_mut() {
        let relative = tensor.range.clone();
        let start = relative.start.checked_add(data);
        let end = relative.end.checked_add(data).filter(|end| *end <= length);
        let (Some(start), Some(end)) = (start, end) else {
            let (name, bytes, at) = (&tensor.name, relative.len(), relative.start);
            return Err(cursor.malformed(format!(
                "tensor `{name}` needs {bytes} bytes at data offset {at}, but the file has {length} in all; \
                 is the download complete?"
            )));
        };
        tensor.range = start..end;
    }
    let mut order: Vec<_> = tensors.values().collect();
    order.sort_by_key(|tensor| tensor.range.start);
    match order.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some(pair) => Err(cursor.malformed(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name))),
        None => Ok(()),
    }
}

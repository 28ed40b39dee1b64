//! Bounded reading of a GGUF header.
//!
//! Nothing a file says is believed before it is compared with the bytes that are there: a count of items
//! is at most the bytes left divided by the smallest item, so a lying header cannot make us allocate.

use std::{ops::Range, path::Path};

use super::{Array, BlockType, TensorInfo, Value};
use crate::{Error, Result};

/// Arrays of arrays deeper than this are refused.
const MAX_NESTING: usize = 4;
/// Tensors have at most this many dimensions.
const MAX_DIMENSIONS: usize = 4;

/// Type of a metadata value, by its number in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// Bytes of a value of fixed size; the fewest bytes of a text or an array.
    pub(super) const fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

/// A position in a file's bytes.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8], at: usize) -> Self {
        Self { path, bytes, at }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The same bytes, read from `at` on.
    pub(super) fn moved(&self, at: usize) -> Self {
        Self { at, ..*self }
    }

    pub(super) fn malformed(&self, detail: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.to_path_buf(), detail: detail.into() }
    }

    pub(super) fn unsupported(&self, field: &str, value: impl ToString, supported: &str) -> Error {
        Error::Unsupported {
            path: self.path.to_path_buf(),
            field: field.into(),
            value: value.to_string(),
            supported: supported.into(),
        }
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| Some((end, self.bytes.get(self.at..end)?))) {
            Some((end, bytes)) => {
                self.at = end;
                Ok(bytes)
            }
            None => {
                let (at, left) = (self.at, self.left());
                Err(self.malformed(format!("{what} needs {count} bytes at offset {at}, but {left} are left")))
            }
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of items that take at least `least_bytes` each.
    pub(super) fn count(&mut self, least_bytes: usize, what: &str) -> Result<usize> {
        let count = self.u64(what)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / least_bytes => Ok(count),
            _ => Err(self.malformed(format!("{what} is {count}, but only {} bytes are left", self.left()))),
        }
    }

    pub(super) fn text(&mut self, what: &str) -> Result<&'a str> {
        let length = self.count(1, what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|e| self.malformed(format!("{what} is not UTF-8: {e}")))
    }

    pub(super) fn kind(&mut self, what: &str) -> Result<Kind> {
        let id = self.u32(what)?;
        let kind = usize::try_from(id).ok().and_then(|id| Kind::ALL.get(id).copied());
        kind.ok_or_else(|| self.malformed(format!("{what} has the unknown value type {id}")))
    }

    /// Steps over a value, checking all of it; returns where its bytes stand.
    pub(super) fn skip(&mut self, kind: Kind, what: &str) -> Result<Range<usize>> {
        let start = self.at;
        self.skip_nested(kind, what, 0)?;
        Ok(start..self.at)
    }

    fn skip_nested(&mut self, kind: Kind, what: &str, depth: usize) -> Result<()> {
        match kind {
            Kind::Text => self.text(what).map(drop),
            Kind::Array if depth == MAX_NESTING => {
                Err(self.malformed(format!("{what} nests arrays deeper than {MAX_NESTING}")))
            }
            Kind::Array => {
                let item = self.kind(what)?;
                let count = self.count(item.least_bytes(), what)?;
                if matches!(item, Kind::Text | Kind::Array) {
                    return (0..count).try_for_each(|_| self.skip_nested(item, what, depth + 1));
                }
                self.take(count * item.least_bytes(), what).map(drop)
            }
            fixed => self.take(fixed.least_bytes(), what).map(drop),
        }
    }

    /// The value of type `kind` that stands here.
    pub(super) fn value(&mut self, kind: Kind, what: &str) -> Result<Value<'a>> {
        Ok(match kind {
            Kind::U8 => Value::Unsigned(u8::from_le_bytes(self.array(what)?).into()),
            Kind::U16 => Value::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            Kind::U32 => Value::Unsigned(self.u32(what)?.into()),
            Kind::U64 => Value::Unsigned(self.u64(what)?),
            Kind::I8 => Value::Signed(i8::from_le_bytes(self.array(what)?).into()),
            Kind::I16 => Value::Signed(i16::from_le_bytes(self.array(what)?).into()),
            Kind::I32 => Value::Signed(i32::from_le_bytes(self.array(what)?).into()),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array(what)?)),
            Kind::F32 => Value::Float(decimal(f32::from_le_bytes(self.array(what)?))),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            Kind::Bool => Value::Bool(self.array::<1>(what)? != [0]),
            Kind::Text => Value::Text(self.text(what)?),
            Kind::Array => {
                let start = self.clone();
                self.skip(kind, what)?;
                let mut items = start;
                let kind = items.kind(what)?;
                let length = items.count(kind.least_bytes(), what)?;
                Value::Array(Array { items, kind, length })
            }
        })
    }

    /// One entry of the tensor directory. The range is relative to the start of the data.
    pub(super) fn tensor(&mut self, alignment: usize) -> Result<TensorInfo> {
        let name = self.text("a tensor name")?.to_owned();
        let dimensions = self.u32(&name)?;
        if dimensions == 0 || dimensions as usize > MAX_DIMENSIONS {
            return Err(self.malformed(format!("tensor `{name}` has {dimensions} dimensions, expected 1 to 4")));
        }
        // The file counts from the fastest dimension, shapes here from the slowest.
        let mut shape = Vec::with_capacity(MAX_DIMENSIONS);
        for _ in 0..dimensions {
            let length = self.u64(&name)?;
            let length = usize::try_from(length).ok().filter(|length| *length > 0);
            shape.push(length.ok_or_else(|| self.malformed(format!("tensor `{name}` has an impossible dimension")))?);
        }
        shape.reverse();
        let id = self.u32(&name)?;
        let kind = BlockType::from_id(id).ok_or_else(|| {
            let supported = BlockType::ALL.map(BlockType::name).join(", ");
            self.unsupported(&format!("type of tensor {name}"), id, &supported)
        })?;
        let offset = self.u64(&name)?;

        let row = shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(kind.block_values()) {
            let (block, kind) = (kind.block_values(), kind.name());
            return Err(self
                .malformed(format!("tensor `{name}` has rows of {row} values, but {kind} stores blocks of {block}")));
        }
        let values = shape.iter().try_fold(1_usize, |all, length| all.checked_mul(*length));
        let bytes = values.and_then(|values| (values / kind.block_values()).checked_mul(kind.block_bytes()));
        let start = usize::try_from(offset).ok().filter(|start| start.is_multiple_of(alignment));
        let range = start.zip(bytes).and_then(|(start, bytes)| Some(start..start.checked_add(bytes)?));
        let range = range.ok_or_else(|| {
            self.malformed(format!("tensor `{name}` of shape {shape:?} cannot stand at offset {offset}"))
        })?;
        Ok(TensorInfo { name, shape, kind, range })
    }
}

/// The f64 with the shortest decimal form of `value`, so that an f32 of 1e-5 is read as 1e-5.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

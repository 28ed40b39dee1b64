//! Rows of an index: their type, and stretches of them in memory or in a mapped file.

use crate::{Embeddings, Error, Result};
use half::f16;
use memmap2::Mmap;
use std::ops::Range;
use std::sync::Arc;

/// How an index holds the numbers of its vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowType {
    /// Half precision: half the memory, and half the time where memory is the limit.
    #[default]
    F16,
    /// Single precision.
    F32,
}

impl RowType {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Keys and rows that lie together.
pub(super) enum Segment {
    /// In memory; grows.
    Owned { keys: Vec<u64>, rows: Numbers },
    /// In a mapped file.
    Mapped { map: Arc<Mmap>, keys: Range<usize>, rows: Range<usize>, row_type: RowType },
}

/// Numbers of either type.
pub(super) enum Numbers {
    F16(Vec<f16>),
    F32(Vec<f32>),
}

/// Some rows `[rows, dim]` of a segment.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
}

impl Segment {
    pub(super) fn empty(row_type: RowType) -> Self {
        Self::Owned {
            keys: Vec::new(),
            rows: match row_type {
                RowType::F16 => Numbers::F16(Vec::new()),
                RowType::F32 => Numbers::F32(Vec::new()),
            },
        }
    }

    /// Keys and rows at these bytes of a mapped file; none if they lie outside or askew.
    pub(super) fn mapped(map: &Arc<Mmap>, keys: Range<usize>, rows: Range<usize>, row_type: RowType) -> Option<Self> {
        let key_bytes = map.get(keys.clone())?;
        let row_bytes = map.get(rows.clone())?;
        bytemuck::try_cast_slice::<u8, u64>(key_bytes).ok()?;
        match row_type {
            RowType::F16 => drop(bytemuck::try_cast_slice::<u8, f16>(row_bytes).ok()?),
            RowType::F32 => drop(bytemuck::try_cast_slice::<u8, f32>(row_bytes).ok()?),
        }
        let map = Arc::clone(map);
        Some(Self::Mapped { map, keys, rows, row_type })
    }

    pub(super) fn len(&self) -> usize {
        self.keys().len()
    }

    pub(super) fn keys(&self) -> &[u64] {
        match self {
            Self::Owned { keys, .. } => keys,
            Self::Mapped { map, keys, .. } => slice(map, keys),
        }
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        match self {
            Self::Owned { rows, .. } => match rows {
                Numbers::F16(rows) => Rows::F16(rows),
                Numbers::F32(rows) => Rows::F32(rows),
            },
            Self::Mapped { map, rows, row_type, .. } => match row_type {
                RowType::F16 => Rows::F16(slice(map, rows)),
                RowType::F32 => Rows::F32(slice(map, rows)),
            },
        }
    }

    /// Adds vectors to a segment in memory.
    pub(super) fn extend(&mut self, new: &[u64], vectors: &Embeddings) {
        if let Self::Owned { keys, rows } = self {
            keys.extend(new);
            let values = vectors.as_slice();
            match rows {
                Numbers::F16(rows) => rows.extend(values.iter().map(|&v| f16::from_f32(v))),
                Numbers::F32(rows) => rows.extend(values),
            }
        }
    }
}

impl<'a> Rows<'a> {
    /// Rows `range` of these, `dim` numbers each.
    pub(super) fn part(self, range: Range<usize>, dim: usize) -> Self {
        let range = range.start * dim..range.end * dim;
        match self {
            Self::F16(rows) => Self::F16(rows.get(range).unwrap_or_default()),
            Self::F32(rows) => Self::F32(rows.get(range).unwrap_or_default()),
        }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::F16(rows) => bytemuck::cast_slice(rows),
            Self::F32(rows) => bytemuck::cast_slice(rows),
        }
    }
}

/// Bytes of a map as numbers. [`Segment::mapped`] has made sure that they are.
fn slice<'a, T: bytemuck::AnyBitPattern>(map: &'a Mmap, range: &Range<usize>) -> &'a [T] {
    let bytes = map.get(range.clone()).unwrap_or_default();
    bytemuck::try_cast_slice(bytes).unwrap_or_default()
}

/// Refuses numbers that rows of this type cannot hold.
pub(super) fn check_rows(vectors: &Embeddings, row_type: RowType) -> Result<()> {
    let largest = match row_type {
        RowType::F16 => f16::MAX.to_f32(),
        RowType::F32 => f32::MAX,
    };
    // A NaN is not within any bounds either.
    let bad = |value: &f32| !(-largest..=largest).contains(value);
    match vectors.as_slice().iter().position(bad) {
        None => Ok(()),
        Some(place) => Err(Error::NotFinite {
            row: place / vectors.dim(),
            dimension: place % vectors.dim(),
            value: vectors.as_slice().get(place).copied().unwrap_or(f32::NAN),
        }),
    }
}

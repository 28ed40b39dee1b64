//! Rows of an index: their type, and stretches of them in memory or in a mapped file.

use super::file::ALIGN;
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
    /// Eight bits and a scale for each vector: a quarter of the memory and time of single precision. Scores are off
    /// by up to about half a percent of the vectors' lengths, which now and then swaps neighbours in a ranking.
    I8,
}

impl RowType {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::I8 => 1,
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

/// Numbers of any type.
pub(super) enum Numbers {
    F16(Vec<f16>),
    F32(Vec<f32>),
    I8 { scales: Vec<f32>, rows: Vec<i8> },
}

/// Some rows `[rows, dim]` of a segment.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
    /// A number stands for itself times its row's scale.
    I8 {
        scales: &'a [f32],
        rows: &'a [i8],
    },
}

impl Segment {
    pub(super) fn empty(row_type: RowType) -> Self {
        Self::Owned {
            keys: Vec::new(),
            rows: match row_type {
                RowType::F16 => Numbers::F16(Vec::new()),
                RowType::F32 => Numbers::F32(Vec::new()),
                RowType::I8 => Numbers::I8 { scales: Vec::new(), rows: Vec::new() },
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
            RowType::I8 => drop(bytemuck::try_cast_slice::<u8, f32>(row_bytes.get(..key_bytes.len() / 2)?).ok()?),
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
                Numbers::I8 { scales, rows } => Rows::I8 { scales, rows },
            },
            Self::Mapped { map, keys, rows, row_type } => match row_type {
                RowType::F16 => Rows::F16(slice(map, rows)),
                RowType::F32 => Rows::F32(slice(map, rows)),
                RowType::I8 => {
                    let scales = rows.start..rows.start + keys.len() / 2;
                    let numbers = scales_size(keys.len() / 8) + rows.start..rows.end;
                    Rows::I8 { scales: slice(map, &scales), rows: slice(map, &numbers) }
                }
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
                Numbers::I8 { scales, rows } => {
                    for vector in vectors.rows() {
                        let largest = vector.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
                        let scale = largest / 127.0;
                        let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                        scales.push(scale);
                        rows.extend(vector.iter().map(|value| (value * steps).round() as i8));
                    }
                }
            }
        }
    }
}

impl<'a> Rows<'a> {
    /// Rows `range` of these, `dim` numbers each.
    pub(super) fn part(self, lines: Range<usize>, dim: usize) -> Self {
        let range = lines.start * dim..lines.end * dim;
        match self {
            Self::F16(rows) => Self::F16(rows.get(range).unwrap_or_default()),
            Self::F32(rows) => Self::F32(rows.get(range).unwrap_or_default()),
            Self::I8 { scales, rows } => {
                Self::I8 { scales: scales.get(lines).unwrap_or_default(), rows: rows.get(range).unwrap_or_default() }
            }
        }
    }

    /// The scales' bytes, of rows that have scales.
    pub(super) fn scale_bytes(self) -> &'a [u8] {
        match self {
            Self::I8 { scales, .. } => bytemuck::cast_slice(scales),
            _ => &[],
        }
    }

    /// The numbers' bytes.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::F16(rows) => bytemuck::cast_slice(rows),
            Self::F32(rows) => bytemuck::cast_slice(rows),
            Self::I8 { rows, .. } => bytemuck::cast_slice(rows),
        }
    }
}

/// Bytes of the scales of `count` rows in a file, with the zeros behind them.
pub(super) fn scales_size(count: usize) -> usize {
    (count * 4).next_multiple_of(ALIGN)
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
        RowType::F32 | RowType::I8 => f32::MAX,
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

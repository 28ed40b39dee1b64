//! Summaries as they lie on disk: mapped into memory, converted only where a caller asks for it.

use std::ops::Range;
use std::path::Path;

use half::f16;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::blob::{ENTRY, FORMAT, Label, dtype};
use super::encoder::EncoderInfo;
use super::layout::Stamp;
use super::map::map;
use super::precision::{Precision, SummaryRows};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// A document's softprompt without a copy: one mapped file a segment, in order.
///
/// Checksums were compared when it was opened. It stays readable when the document is replaced or
/// removed meanwhile.
#[derive(Debug)]
pub struct MappedSummary {
    segments: Vec<MappedSegment>,
}

impl MappedSummary {
    pub(super) const fn new(segments: Vec<MappedSegment>) -> Self {
        Self { segments }
    }

    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[MappedSegment] {
        &self.segments
    }

    /// Vectors in all.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.segments.iter().map(MappedSegment::rows).sum()
    }

    /// All values as f32, `[rows, hidden]`: the one copy.
    ///
    /// # Errors
    /// [`Error::SummaryShape`] if segments differ in width.
    pub fn to_rows(&self) -> Result<SummaryRows> {
        let hidden = self.segments.first().map_or(0, MappedSegment::hidden);
        let mut data = Vec::with_capacity(self.rows() * hidden);
        for segment in &self.segments {
            if segment.hidden != hidden {
                let (rows, values) = (segment.rows, segment.rows * segment.hidden);
                let expected = format!("rows of {hidden}");
                return Err(Error::SummaryShape { rows, hidden: segment.hidden, values, expected });
            }
            segment.append_to(&mut data);
        }
        SummaryRows::new(self.rows(), hidden, data)
    }
}

/// One segment's summary, mapped.
#[derive(Debug)]
pub struct MappedSegment {
    bytes: Mmap,
    values: Range<usize>,
    scales: Range<usize>,
    rows: usize,
    hidden: usize,
    precision: Precision,
}

impl MappedSegment {
    /// Maps a file, checks it against the catalogue's checksum and finds its rows.
    pub(super) fn open(path: &Path, checksum: &Digest) -> Result<Self> {
        let bytes = map(path)?;
        let found = Digest::of(&bytes);
        if found != *checksum {
            return Err(Error::checksum(path, checksum, &found));
        }
        let Found { values, scales, rows, hidden, precision, .. } = find(&bytes, path)?;
        Ok(Self { bytes, values, scales, rows, hidden, precision })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Vectors.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Their width.
    #[must_use]
    pub const fn hidden(&self) -> usize {
        self.hidden
    }

    /// How they are stored, which tells which of the views below there is.
    #[must_use]
    pub const fn precision(&self) -> Precision {
        self.precision
    }

    /// The values, `[rows, hidden]`, where they are stored as f32 (on a little-endian machine).
    #[must_use]
    pub fn as_f32(&self) -> Option<&[f32]> {
        self.view(Precision::F32)
    }

    /// The values, `[rows, hidden]`, where they are stored as f16 (on a little-endian machine).
    #[must_use]
    pub fn as_f16(&self) -> Option<&[f16]> {
        self.view(Precision::F16)
    }

    /// The values, `[rows, hidden]`, and a scale for each row, where they are stored as int8.
    #[must_use]
    pub fn as_int8(&self) -> Option<(&[i8], &[f32])> {
        let scales = self.bytes.get(self.scales.clone()).filter(|_| cfg!(target_endian = "little"))?;
        Some((self.view(Precision::Int8)?, bytemuck::try_cast_slice(scales).ok()?))
    }

    fn view<T: bytemuck::Pod>(&self, precision: Precision) -> Option<&[T]> {
        let fits = self.precision == precision && cfg!(target_endian = "little");
        bytemuck::try_cast_slice(self.bytes.get(self.values.clone())?).ok().filter(|_| fits)
    }

    fn append_to(&self, data: &mut Vec<f32>) {
        let part = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.precision.unpack(part(&self.values), part(&self.scales), self.hidden, data);
    }
}

/// Where in a file its rows are, and what its label says.
#[derive(Debug)]
pub(super) struct Found {
    values: Range<usize>,
    scales: Range<usize>,
    pub(super) rows: usize,
    hidden: usize,
    precision: Precision,
    pub(super) key: Digest,
    pub(super) encoder: EncoderInfo,
}

/// Finds the rows in a summary file's contents.
pub(super) fn find(bytes: &[u8], path: &Path) -> Result<Found> {
    let broken = |reason: String| Error::damaged(path, reason);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| broken(e.to_string()))?;
    let label = header.metadata().as_ref().and_then(|entries| entries.get(ENTRY));
    let label = label.ok_or_else(|| broken(format!("its metadata lack the entry {ENTRY:?}")))?;
    // The stamp first: a label from the future need not fit today's fields.
    let stamp: Stamp = serde_json::from_str(label).map_err(|e| broken(e.to_string()))?;
    stamp.check(FORMAT, path)?;
    let label: Label<'_> = serde_json::from_str(label).map_err(|e| broken(e.to_string()))?;
    let precision = label.encoder.precision;

    let file = SafeTensors::deserialize(bytes).map_err(|e| broken(e.to_string()))?;
    let summary = file.tensor("summary").map_err(|e| broken(e.to_string()))?;
    let (&[rows, hidden], true) = (summary.shape(), summary.dtype() == dtype(precision)) else {
        let (shape, dtype) = (summary.shape(), summary.dtype());
        return Err(broken(format!("tensor `summary` is {dtype:?} {shape:?}, expected {precision} [rows, hidden]")));
    };
    let scales = match precision {
        Precision::Int8 => {
            let scale = file.tensor("scale").map_err(|e| broken(e.to_string()))?;
            if scale.dtype() != Dtype::F32 || scale.shape() != [rows] {
                return Err(broken(format!("tensor `scale` is not f32 [{rows}]")));
            }
            range_within(bytes, scale.data())
        }
        _ => 0..0,
    };
    let values = range_within(bytes, summary.data());
    Ok(Found { values, scales, rows, hidden, precision, key: label.key, encoder: label.encoder.into_owned() })
}

/// The place of a part, which was cut out of the whole.
fn range_within(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

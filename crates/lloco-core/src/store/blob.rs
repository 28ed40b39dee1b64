//! One summary file: a safetensors file with the rows of one segment.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::layout::Stamp;
use super::map::map;
use super::precision::{Precision, SummaryRows};
use super::types::{EncoderInfo, Segment};
use crate::digest::Digest;
use crate::error::{Error, Result};

const FORMAT: &str = "lloco-summary";
/// The one entry of the file's metadata. One entry only: its order is then fixed, and equal
/// summaries are equal files.
const ENTRY: &str = "lloco";

/// What a summary file says about itself.
#[derive(Serialize, Deserialize)]
struct Label<'a> {
    #[serde(flatten)]
    stamp: Stamp,
    key: Digest,
    previous: Option<Digest>,
    tokens: u32,
    encoder: Cow<'a, EncoderInfo>,
}

/// The contents of a summary file.
pub(super) fn serialize(segment: &Segment, encoder: &EncoderInfo, rows: &SummaryRows) -> Result<Vec<u8>> {
    let broken = |error: String| Error::damaged(Path::new(ENTRY), error);
    let packed = encoder.precision.pack(rows)?;
    let (shape, dtype) = (vec![rows.rows(), rows.hidden()], dtype(encoder.precision));
    let view = |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(|e| broken(e.to_string()));
    let mut tensors = vec![("summary", view(dtype, shape, &packed.values)?)];
    if let Some(scales) = &packed.scales {
        tensors.push(("scale", view(Dtype::F32, vec![rows.rows()], scales)?));
    }
    let Segment { key, previous, tokens } = *segment;
    let label = Label { stamp: Stamp::new(FORMAT), key, previous, tokens, encoder: Cow::Borrowed(encoder) };
    let label = serde_json::to_string(&label).map_err(|e| broken(e.to_string()))?;
    safetensors::serialize(tensors, Some(HashMap::from([(ENTRY.into(), label)]))).map_err(|e| broken(e.to_string()))
}

/// A mapped summary file whose checksum is right.
pub(super) struct Blob {
    bytes: Mmap,
}

impl Blob {
    /// Maps a file and checks it against the catalogue's record.
    pub(super) fn open(path: &Path, checksum: &Digest) -> Result<Self> {
        let bytes = map(path)?;
        let found = Digest::of(&bytes);
        if found != *checksum {
            return Err(Error::checksum(path, checksum, &found));
        }
        Ok(Self { bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The rows as f32.
    pub(super) fn rows(&self, path: &Path) -> Result<SummaryRows> {
        parse(&self.bytes, path)
    }
}

/// The rows in a summary file's contents.
fn parse(bytes: &[u8], path: &Path) -> Result<SummaryRows> {
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
    let scales: Vec<f32> = match precision {
        Precision::Int8 => {
            let scale = file.tensor("scale").map_err(|e| broken(e.to_string()))?;
            if scale.dtype() != Dtype::F32 || scale.shape() != [rows] {
                return Err(broken(format!("tensor `scale` is not f32 [{rows}]")));
            }
            scale.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        _ => Vec::new(),
    };
    SummaryRows::new(rows, hidden, precision.unpack(summary.data(), hidden, scales.into_iter()))
}

const fn dtype(precision: Precision) -> Dtype {
    match precision {
        Precision::F16 => Dtype::F16,
        Precision::F32 => Dtype::F32,
        Precision::Int8 => Dtype::I8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(precision: Precision) -> (Vec<u8>, SummaryRows) {
        let encoder = EncoderInfo::new("e", 4, 2, 3).precision(precision);
        let rows = SummaryRows::new(2, 3, vec![0.5, -1.0, 0.25, 2.0, 0.0, -2.0]).unwrap();
        let segment = encoder.segment_keys(&[&[1, 2]])[0];
        (serialize(&segment, &encoder, &rows).unwrap(), rows)
    }

    #[test]
    fn what_is_written_is_read() {
        for precision in [Precision::F16, Precision::F32, Precision::Int8] {
            let (bytes, rows) = file(precision);
            assert_eq!(parse(&bytes, Path::new("x")).unwrap(), precision.round(&rows).unwrap());
            assert_eq!(bytes, file(precision).0, "equal summaries are equal files");
        }
    }

    /// Bytes that got past the checksum all the same: an error or rows, never a panic.
    #[test]
    fn hostile_bytes_give_an_error() {
        let mut refused = 0;
        for precision in [Precision::F16, Precision::Int8] {
            let (bytes, _) = file(precision);
            for at in 0..bytes.len() {
                for change in [0x01, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= change;
                    refused += usize::from(parse(&bytes, Path::new("x")).is_err());
                }
                assert!(parse(&bytes[..at], Path::new("x")).is_err(), "cut to {at}");
            }
        }
        assert!(refused > 500, "{refused}");
        let length = (u64::MAX / 2).to_le_bytes();
        assert!(parse(&length, Path::new("x")).is_err());
    }

    #[test]
    fn a_file_from_the_future_is_refused() {
        let (mut bytes, _) = file(Precision::F32);
        let version = br#"\"version\":1"#;
        let at = bytes.windows(version.len()).position(|window| window == version).unwrap();
        bytes[at + 12] = b'9';
        let error = parse(&bytes, Path::new("x.safetensors")).unwrap_err();
        assert!(matches!(error, Error::FutureFormat { found: 9, supported: 1, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("x.safetensors") && text.contains('9') && text.contains("up to 1"), "{text}");
    }
}

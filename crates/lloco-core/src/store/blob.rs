//! One summary file: a safetensors file with the rows of one segment. It is read in `mapped.rs`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::encoder::{EncoderInfo, Segment};
use super::layout::Stamp;
use super::precision::{Precision, SummaryRows};
use crate::digest::Digest;
use crate::error::{Error, Result};

pub(super) const FORMAT: &str = "lloco-summary";
/// The one entry of the file's metadata. One entry only: its order is then fixed, and equal
/// summaries are equal files.
pub(super) const ENTRY: &str = "lloco";

/// What a summary file says about itself.
#[derive(Serialize, Deserialize)]
pub(super) struct Label<'a> {
    #[serde(flatten)]
    stamp: Stamp,
    pub(super) key: Digest,
    previous: Option<Digest>,
    tokens: u32,
    pub(super) encoder: Cow<'a, EncoderInfo>,
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

pub(super) const fn dtype(precision: Precision) -> Dtype {
    match precision {
        Precision::F16 => Dtype::F16,
        Precision::F32 => Dtype::F32,
        Precision::Int8 => Dtype::I8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mapped::{MappedSegment, MappedSummary, find};

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
            let on_disk = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(on_disk.path(), &bytes).unwrap();
            let mapped = MappedSegment::open(on_disk.path(), &Digest::of(&bytes)).unwrap();
            let views = (mapped.as_f32().is_some(), mapped.as_f16().is_some(), mapped.as_int8().is_some());
            let is = |other| precision == other;
            assert_eq!(views, (is(Precision::F32), is(Precision::F16), is(Precision::Int8)), "one view, and aligned");
            let all = MappedSummary::new(vec![mapped]).to_rows().unwrap();
            assert_eq!(all, precision.round(&rows).unwrap());
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
                    refused += usize::from(find(&bytes, Path::new("x")).is_err());
                }
                assert!(find(&bytes[..at], Path::new("x")).is_err(), "cut to {at}");
            }
        }
        assert!(refused > 500, "{refused}");
        let length = (u64::MAX / 2).to_le_bytes();
        assert!(find(&length, Path::new("x")).is_err());
    }

    #[test]
    fn a_file_from_the_future_is_refused() {
        let (mut bytes, _) = file(Precision::F32);
        let version = br#"\"version\":1"#;
        let at = bytes.windows(version.len()).position(|window| window == version).unwrap();
        bytes[at + 12] = b'9';
        let error = find(&bytes, Path::new("x.safetensors")).unwrap_err();
        assert!(matches!(error, Error::FutureFormat { found: 9, supported: 1, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("x.safetensors") && text.contains('9') && text.contains("up to 1"), "{text}");
    }
}

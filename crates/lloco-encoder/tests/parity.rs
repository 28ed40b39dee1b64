//! Softprompts agree with PyTorch on every folder of reference outputs, and with themselves however they are made.
//!
//! `LLOCO_GOLDENS` names another directory of such folders.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lloco_decoder::{
    Checkpoint, Decoder, WeightType,
    burn::tensor::{Device, Tensor, s},
};
use lloco_encoder::{AutoCompressor, ContextEncoder, EncoderOptions, Error, Training};
use safetensors::SafeTensors;
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    segment_length: usize,
    summary_length: usize,
    document_ids: Vec<u32>,
}

struct Golden {
    folder: PathBuf,
    checkpoint: Checkpoint,
    decoder: Arc<Decoder>,
    cases: Cases,
}

fn goldens() -> Vec<Golden> {
    let dir = std::env::var_os("LLOCO_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens"), PathBuf::from);
    let folders = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<Golden> = folders
        .filter(|folder| folder.join("cases.json").exists())
        .map(|folder| {
            let checkpoint = Checkpoint::open(&folder).unwrap();
            let decoder = Arc::new(Decoder::load(&checkpoint, WeightType::F32, &Device::flex()).unwrap());
            let cases = serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap();
            Golden { folder, checkpoint, decoder, cases }
        })
        .collect();
    assert!(!found.is_empty(), "no reference outputs found");
    found
}

impl Golden {
    fn encoder(&self, accumulate: bool) -> AutoCompressor {
        let options = EncoderOptions {
            segment_length: Some(self.cases.segment_length),
            summary_length: Some(self.cases.summary_length),
            accumulate_summary: Some(accumulate),
            ratio: None,
        };
        AutoCompressor::load(&self.checkpoint, self.decoder.clone(), &options).unwrap()
    }

    fn expected(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let bytes = fs::read(self.folder.join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (values, view.shape().to_vec())
    }
}

fn values(rows: Tensor<2>) -> Vec<f32> {
    rows.into_data().try_to_vec().unwrap()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn parity_of_softprompts() {
    for golden in goldens() {
        for (accumulate, name) in [(true, "softprompt"), (false, "softprompt_no_accumulate")] {
            let (expected, shape) = golden.expected(name);
            let rows = golden.encoder(accumulate).encode(&golden.cases.document_ids).unwrap();
            assert_eq!(rows.dims().to_vec(), shape);
            let rows = values(rows);
            let what = format!("{} {name}", golden.folder.display());
            assert!(worst(&rows, &expected) < 1e-4, "{what}: differs by {:e}", worst(&rows, &expected));
            for (a, b) in rows.chunks(shape[1]).zip(expected.chunks(shape[1])) {
                assert!(cosine(a, b) > 0.9999, "{what}: cosine {}", cosine(a, b));
            }
        }
    }
}

#[test]
fn parity_of_documents_read_together_and_alone() {
    for golden in goldens() {
        for accumulate in [true, false] {
            let (encoder, ids) = (golden.encoder(accumulate), &golden.cases.document_ids);
            let segment = golden.cases.segment_length;
            let lengths = [1, 2, segment / 2, segment, 1, 3, ids.len(), 2, 1, segment + 1, 1].map(|n| n.min(ids.len()));
            let documents: Vec<&[u32]> = lengths.iter().map(|&n| &ids[ids.len() - n..]).collect();
            let together = encoder.encode_all(&documents).unwrap();
            assert_eq!(together.len(), documents.len());
            for (together, ids) in together.into_iter().zip(&documents) {
                let alone = encoder.encode(ids).unwrap();
                assert_eq!(together.dims(), alone.dims());
                let worst = worst(&values(together), &values(alone));
                assert!(worst < 1e-4, "{} tokens: {worst:e}", ids.len());
            }
            assert!(matches!(encoder.encode_all(&[&ids[..1], &[]]), Err(Error::EmptyDocument)));
        }
    }
}

#[test]
fn parity_of_append_and_recompute() {
    for golden in goldens() {
        for accumulate in [true, false] {
            let encoder = golden.encoder(accumulate);
            let ids = &golden.cases.document_ids;
            let whole = values(encoder.encode(ids).unwrap());
            for boundary in (golden.cases.segment_length..ids.len()).step_by(golden.cases.segment_length) {
                let head = encoder.encode(&ids[..boundary]).unwrap();
                let mut encoding = encoder.resume(head, 1).unwrap();
                for segment in encoder.segments(&ids[boundary..]) {
                    encoding.push(segment).unwrap();
                }
                let appended = values(encoding.softprompt().unwrap());
                assert!(worst(&appended, &whole) < 1e-4, "boundary {boundary}: {:e}", worst(&appended, &whole));
            }
        }
    }
}

#[test]
fn parity_of_pushed_summaries_and_softprompt() {
    for golden in goldens() {
        let encoder = golden.encoder(true);
        let mut encoding = encoder.start(1);
        let pushed: Vec<f32> = encoder
            .segments(&golden.cases.document_ids)
            .flat_map(|segment| values(encoding.push(segment).unwrap()))
            .collect();
        assert_eq!(pushed, values(encoder.encode(&golden.cases.document_ids).unwrap()));
    }
}

#[test]
fn fingerprints_tell_encoders_apart() {
    let goldens = goldens();
    let golden = &goldens[0];
    assert_eq!(golden.encoder(true).fingerprint(), golden.encoder(true).fingerprint());
    assert_ne!(golden.encoder(true).fingerprint(), golden.encoder(false).fingerprint());
    for other in goldens.iter().skip(1) {
        assert_ne!(golden.encoder(true).fingerprint(), other.encoder(true).fingerprint());
    }
}

#[test]
fn a_file_gives_back_what_was_saved() {
    let golden = goldens().remove(0);
    let encoder = golden.encoder(true);
    assert_eq!(encoder.training(), Training::Trained);
    let rows = encoder.encode(&golden.cases.document_ids).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    lloco_encoder::softprompt::save(&path, rows.clone()).unwrap();
    let back = lloco_encoder::softprompt::load(&path, &Device::flex()).unwrap();
    assert_eq!(values(back), values(rows));

    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(97) {
        fs::write(&path, &bytes[..length]).unwrap();
        let result = lloco_encoder::softprompt::load(&path, &Device::flex());
        assert!(matches!(result, Err(Error::Malformed { .. })), "{length} bytes were accepted");
    }
}

#[test]
fn wrong_inputs_are_named() {
    let golden = goldens().remove(0);
    let encoder = golden.encoder(true);
    assert!(matches!(encoder.encode(&[]), Err(Error::EmptyDocument)));
    let far = golden.decoder.config().vocab_size as u32;
    assert!(matches!(encoder.encode(&[1, far]), Err(Error::Decoder(lloco_decoder::Error::OutOfVocabulary { .. }))));

    let mut encoding = encoder.start(1);
    let long = vec![1; golden.cases.segment_length + 1];
    assert!(matches!(encoding.push(&long), Err(Error::SegmentTooLong { .. })));
    encoding.push(&[1, 2]).unwrap();
    assert!(matches!(encoding.push(&[1]), Err(Error::SegmentTooShort { .. })));

    let rows = encoder.encode(&golden.cases.document_ids).unwrap();
    assert!(matches!(encoder.resume(rows.slice(s![0..1, ..]), 1), Err(Error::SoftpromptShape { .. })));
    let options = EncoderOptions { summary_length: Some(golden.cases.summary_length + 1), ..Default::default() };
    let result = AutoCompressor::load(&golden.checkpoint, golden.decoder.clone(), &options);
    assert!(matches!(result, Err(Error::InvalidSetting { field: "summary_length", .. })));
}

//! The pooling encoder, and compressor directories of both kinds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{BASE, tiny_decoder, values, worst};
use lloco_decoder::burn::tensor::{Tensor, s};
use lloco_encoder::{
    Compressor, ContextEncoder, EncoderConfig, EncoderOptions, Error, Mode, PooledConfig, Reader, Training, Tuning,
};
use lloco_lora::{LoraConfig, StoredType};

fn lora() -> LoraConfig {
    LoraConfig::default().with_rank(2, 4.0).with_all_linear()
}

fn pooled() -> Compressor {
    let mode =
        Mode::Pooled(PooledConfig { segment_length: 16, ratios: vec![4, 2, 8], layers: None, bidirectional: false });
    Compressor::init(mode, lora(), Reader::Own(lora()), &tiny_decoder(), BASE, 1).unwrap()
}

fn full(layers: Option<usize>) -> Compressor {
    let mode = Mode::Pooled(PooledConfig { segment_length: 16, ratios: vec![4, 2, 8], layers, bidirectional: false });
    Compressor::init(mode, Tuning::Full, Reader::Own(lora()), &tiny_decoder(), BASE, 1).unwrap()
}

fn encoder(compressor: &Compressor, ratio: Option<usize>) -> Box<dyn ContextEncoder> {
    compressor.encoder(tiny_decoder(), &EncoderOptions { ratio, ..Default::default() }).unwrap()
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 5 + i * 3 + 1) % 96).collect()
}

#[test]
fn windows_of_every_ratio_become_vectors() {
    let compressor = pooled();
    for ratio in [2, 4, 8] {
        let encoder = encoder(&compressor, Some(ratio));
        for tokens in [1, 7, 16, 17, 40, 47] {
            let rows = encoder.encode(&ids(tokens)).unwrap().dims()[0];
            assert_eq!(rows, tokens / 16 * (16 / ratio) + (tokens % 16).div_ceil(ratio), "{tokens} at {ratio}");
            assert_eq!(rows, encoder.layout().summary_vectors(tokens));
        }
    }
    assert_eq!(encoder(&compressor, None).layout().summary_length, 4);
    let fingerprints: Vec<String> =
        [2, 4].iter().map(|&ratio| encoder(&compressor, Some(ratio)).fingerprint().to_owned()).collect();
    assert_ne!(fingerprints[0], fingerprints[1]);
}

#[test]
fn vectors_have_the_norm_of_embeddings() {
    let compressor = pooled();
    let rows = encoder(&compressor, None).encode(&ids(33)).unwrap();
    let scale = compressor.config().embedding_scale;
    for rms in values(rows.square().mean_dim(1).sqrt()) {
        assert!((f64::from(rms) / scale - 1.0).abs() < 1e-3, "{rms}, {scale}");
    }
}

#[test]
fn appending_equals_encoding_and_segments_are_independent() {
    let (compressor, ids) = (pooled(), ids(41));
    let encoder = encoder(&compressor, Some(2));
    let whole = values(encoder.encode(&ids).unwrap());
    for boundary in [16, 32] {
        let head = encoder.encode(&ids[..boundary]).unwrap();
        let mut encoding = encoder.resume(head, 1).unwrap();
        for segment in encoder.segments(&ids[boundary..]) {
            encoding.push(segment).unwrap();
        }
        assert_eq!(values(encoding.softprompt().unwrap()), whole);
    }
    // A segment's summary is the same wherever it stands.
    let alone = values(encoder.encode(&ids[16..32]).unwrap());
    assert_eq!(alone, whole[8 * 32..16 * 32]);
}

#[test]
fn documents_read_together_are_what_they_are_alone() {
    for bidirectional in [false, true] {
        let config = PooledConfig { segment_length: 16, ratios: vec![4], layers: None, bidirectional };
        let decoder = tiny_decoder();
        let compressor =
            Compressor::init(Mode::Pooled(config), lora(), Reader::Own(lora()), &decoder, BASE, 1).unwrap();
        let encoder = encoder(&compressor, None);
        assert!(encoder.at_once() > 1);
        let lengths = [40, 7, 64, 16, 33, 1, 7, 16 * 2 * encoder.at_once()];
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&n| ids(n + 3).split_off(3)).collect();
        let together = encoder.encode_all(&documents.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        assert_eq!(together.len(), documents.len());
        for (together, ids) in together.into_iter().zip(&documents) {
            let mut encoding = encoder.start(1);
            encoder.segments(ids).for_each(|segment| assert!(encoding.push(segment).is_ok()));
            let alone = encoding.softprompt().unwrap();
            assert_eq!(together.dims(), alone.dims());
            let worst = worst(&values(together), &values(alone));
            assert!(worst < 1e-5, "{} tokens, bidirectional {bidirectional}: {worst}", ids.len());
        }
        assert!(matches!(encoder.encode_all(&[&ids(3), &[]]), Err(Error::EmptyDocument)));
        assert!(encoder.encode_all(&[]).unwrap().is_empty());
    }
}

#[test]
fn wrong_input_is_named() {
    let compressor = pooled();
    let encoder = encoder(&compressor, None);
    assert!(matches!(encoder.encode(&[]), Err(Error::EmptyDocument)));
    let mut encoding = encoder.start(1);
    assert!(matches!(encoding.push(&ids(17)), Err(Error::SegmentTooLong { .. })));
    let rows = encoding.push(&ids(3)).unwrap();
    assert!(matches!(encoding.push(&ids(3)), Err(Error::SegmentTooShort { .. })));
    assert!(encoding.replace_newest(rows.clone()).is_ok());
    assert!(matches!(encoding.replace_newest(rows.slice(s![.., 0..3])), Err(Error::SoftpromptShape { .. })));
    let rows = Tensor::zeros([3, 32], encoder.decoder().device());
    assert!(matches!(encoder.resume(rows, 0), Err(Error::SoftpromptShape { .. })));
    for options in [
        EncoderOptions { ratio: Some(3), ..Default::default() },
        EncoderOptions { segment_length: Some(8), ..Default::default() },
        EncoderOptions { summary_length: Some(8), ..Default::default() },
    ] {
        assert!(matches!(compressor.encoder(tiny_decoder(), &options), Err(Error::InvalidSetting { .. })));
    }
    let mode = Mode::Pooled(PooledConfig { segment_length: 16, ratios: vec![3], layers: None, bidirectional: false });
    let found = Compressor::init(mode, lora(), Reader::Base, &tiny_decoder(), BASE, 1);
    assert!(matches!(found, Err(Error::InvalidSetting { field: "ratios", .. })));
}

#[test]
fn directories_give_back_what_was_saved() {
    let auto = Mode::AutoCompressor(EncoderConfig { segment_length: 16, summary_length: 3, accumulate_summary: true });
    let auto = Compressor::init(auto, lora(), Reader::Shared, &tiny_decoder(), BASE, 1).unwrap();
    for (name, compressor) in [("pooled", pooled()), ("auto", auto), ("full", full(None))] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        compressor.save(&path, StoredType::F32, &[]).unwrap();
        let back = Compressor::load(&path, &tiny_decoder(), BASE).unwrap();
        let (own, read) = (encoder(&compressor, None), encoder(&back, None));
        assert_eq!(own.fingerprint(), read.fingerprint());
        assert_eq!(own.training(), Training::Untrained);
        assert_eq!(values(own.encode(&ids(40)).unwrap()), values(read.encode(&ids(40)).unwrap()));
        assert_eq!(own.reader().is_some(), read.reader().is_some());

        let half = dir.path().join("half");
        compressor.save(&half, StoredType::F16, &[("note.txt", b"n")]).unwrap();
        assert_eq!(fs::read(half.join("note.txt")).unwrap(), b"n");
        let rough = encoder(&Compressor::load(&half, &tiny_decoder(), BASE).unwrap(), None);
        let (a, b) = (values(own.encode(&ids(40)).unwrap()), values(rough.encode(&ids(40)).unwrap()));
        assert!(worst(&a, &b) < 2e-2, "{name}: {}", worst(&a, &b));

        // Damage is an error that names the file.
        let weights = path.join("compressor.safetensors");
        let bytes = fs::read(&weights).unwrap();
        for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&weights, &bytes[..length]).unwrap();
            let found = Compressor::load(&path, &tiny_decoder(), BASE).unwrap_err();
            assert!(found.to_string().contains("compressor.safetensors"), "{found}");
        }
        fs::write(path.join("compressor.json"), "{}").unwrap();
        assert!(matches!(Compressor::load(&path, &tiny_decoder(), BASE), Err(Error::Malformed { .. })));
    }
}

#[test]
fn full_training_starts_from_the_model_and_its_tensors_must_fit() {
    let rows = |compressor: &Compressor| values(encoder(compressor, None).encode(&ids(40)).unwrap());
    assert_eq!(rows(&full(None)), rows(&pooled()));

    // Those of two layers do not fit a compressor of one, nor those of one a compressor of two.
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    full(Some(1)).save(&one, StoredType::F32, &[]).unwrap();
    full(None).save(&two, StoredType::F32, &[]).unwrap();
    let [of_one, of_two] = [&one, &two].map(|dir| dir.join("compressor.safetensors"));
    let bytes = fs::read(&of_one).unwrap();
    fs::copy(&of_two, &of_one).unwrap();
    let found = Compressor::load(&one, &tiny_decoder(), BASE);
    assert!(matches!(found, Err(Error::Lora(lloco_lora::Error::UnexpectedTensor { .. }))), "{found:?}");
    fs::write(&of_two, bytes).unwrap();
    let found = Compressor::load(&two, &tiny_decoder(), BASE);
    assert!(matches!(found, Err(Error::Lora(lloco_lora::Error::MissingTensor { .. }))), "{found:?}");

    // Who reads with the encoder's adapter needs one.
    let mode = Mode::AutoCompressor(EncoderConfig { segment_length: 16, summary_length: 3, accumulate_summary: true });
    let found = Compressor::init(mode, Tuning::Full, Reader::Shared, &tiny_decoder(), BASE, 1);
    assert!(matches!(found, Err(Error::InvalidSetting { field: "reader", .. })), "{found:?}");
}

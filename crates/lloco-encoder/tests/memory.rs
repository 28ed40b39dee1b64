//! The memory of a training step does not grow with the number of segments.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking; its child prints")]

mod common;

use std::{fs, process::Command};

use common::{BASE, Bytes, text};
use lloco_decoder::{Checkpoint, Decoder, DecoderConfig, WeightType, burn::tensor::Device};
use lloco_encoder::{CompressorTrainer, Corpus, Curriculum};

/// Tells the child how many segments a text has.
const SEGMENTS: &str = "LLOCO_ENCODER_SEGMENTS";
/// Tells it which encoder reads them.
const MODE: &str = "LLOCO_ENCODER_MODE";

/// Texts that an AutoCompressor reads, segment behind segment.
fn auto_compressor(segments: usize) -> String {
    format!(
        r#"{{"mode": {{"autocompressor": {{"segment_length": 256, "summary_length": 2, "accumulate_summary": true}}}},
            "reader": "shared",
            "stages": [{{"name": "s", "steps": 1, "batch": 1, "context": {}, "substeps": 1,
                "segments_per_substep": {segments}, "longest_segment": 256, "losses": {{"next_token": 1.0, "reconstruction": 0.1}}}}]}}"#,
        256 * segments,
    )
}

/// Texts of which each segment is averaged by itself. What starts the connector, and a reading, take less than a segment.
fn pooled(segments: usize) -> String {
    format!(
        r#"{{"mode": {{"pooled": {{"segment_length": 256, "ratios": [64]}}}}, "micro_batch": 1,
            "stages": [
                {{"name": "start", "steps": 1, "batch": 1, "context": 16, "ratios": [64], "losses": {{"reconstruction": 1.0}}}},
                {{"name": "s", "steps": 1, "batch": 1, "context": {}, "ratios": [64], "target_tokens": 16,
                  "losses": {{"reconstruction": 1.0}}}}]}}"#,
        256 * segments,
    )
}

/// The child: every step, then its peak memory.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(segments) = std::env::var(SEGMENTS) else { return };
    let segments: usize = segments.parse().unwrap();
    let json = r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 128, "intermediate_size": 384,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "eos_token_id": 2}"#;
    let config = DecoderConfig::from_json(json, "config.json".as_ref()).unwrap();
    let decoder = Decoder::load(&Checkpoint::random(config, 3), WeightType::F32, &Device::flex()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.txt");
    fs::write(&path, text(1, 4000)).unwrap();
    let corpus = Corpus::open(&[path]).unwrap();
    let curriculum = match std::env::var(MODE).unwrap().as_str() {
        "pooled" => pooled(segments.max(1)),
        _ => auto_compressor(segments.max(1)),
    };
    let curriculum = Curriculum::from_json(&curriculum, "c.json").unwrap();
    let mut trainer = CompressorTrainer::new(&decoder, BASE, curriculum, &corpus, &Bytes).unwrap();
    if segments > 0 {
        while trainer.steps_done() < trainer.curriculum().steps() {
            trainer.step().unwrap();
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

/// Peaks of a step over 2 and over 16 segments, in MB beyond that of a trainer that does none.
fn peaks(mode: &str) -> (f64, f64) {
    let peak = |segments: usize| -> f64 {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(SEGMENTS, segments.to_string())
            .env(MODE, mode)
            .output()
            .unwrap();
        let out = String::from_utf8(out.stdout).unwrap();
        let line = out.lines().find_map(|line| line.split_once("VmHWM:")).unwrap_or_else(|| panic!("{out}")).1;
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    let (still, two, sixteen) = (peak(0), peak(2), peak(16));
    let (two, sixteen) = (two - still, sixteen - still);
    println!("{mode}: a step over 2 segments takes {two:.0} MB, one over 16 takes {sixteen:.0} MB");
    (two, sixteen)
}

#[test]
fn memory_does_not_grow_with_the_segments() {
    let (two, sixteen) = peaks("autocompressor");
    assert!(sixteen < 1.3 * two, "2 segments take {two} MB, 16 take {sixteen} MB");
}

#[test]
fn memory_of_a_pooling_encoder_does_not_grow_with_the_segments() {
    let (two, sixteen) = peaks("pooled");
    assert!(sixteen < 1.3 * two, "2 segments take {two} MB, 16 take {sixteen} MB");
}

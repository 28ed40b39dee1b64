//! A GPU backend agrees with the CPU: `cargo nextest run -p lloco-encoder --features wgpu --test gpu`
//! (or `cuda`, `vulkan`, `metal`). A software driver will do.
#![cfg(any(feature = "wgpu", feature = "cuda", feature = "vulkan", feature = "metal"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{path::Path, sync::Arc};

use common::{BASE, Bytes, curriculum, jsonl, tiny_decoder_on};

use lloco_decoder::{
    Checkpoint, Decoder, GenerateConfig, NoAdapter, Prompt, WeightType,
    burn::tensor::{Device, Tensor},
};
use lloco_encoder::{AutoCompressor, CompressorTrainer, ContextEncoder, EncoderOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    segment_length: usize,
    document_ids: Vec<u32>,
    prompt_ids: Vec<u32>,
    greedy_no_adapter: Vec<u32>,
}

fn gpu() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0usize);
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return Device::wgpu(lloco_decoder::burn::tensor::DeviceKind::DefaultDevice);
    #[cfg(all(feature = "vulkan", not(any(feature = "cuda", feature = "wgpu"))))]
    return Device::vulkan(lloco_decoder::burn::tensor::DeviceKind::DefaultDevice);
    #[cfg(all(feature = "metal", not(any(feature = "cuda", feature = "wgpu", feature = "vulkan"))))]
    return Device::metal(lloco_decoder::burn::tensor::DeviceKind::DefaultDevice);
}

fn values(rows: Tensor<2>) -> Vec<f32> {
    rows.into_data().try_to_vec().unwrap()
}

/// Compresses, then generates behind the softprompt.
fn run(folder: &Path, cases: &Cases, device: &Device) -> (Vec<f32>, Vec<u32>) {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let decoder = Arc::new(Decoder::load(&checkpoint, WeightType::F32, device).unwrap());
    let options = EncoderOptions { segment_length: Some(cases.segment_length), ..Default::default() };
    let encoder = AutoCompressor::load(&checkpoint, decoder.clone(), &options).unwrap();
    let softprompt = encoder.encode(&cases.document_ids).unwrap();
    let prompt = Prompt::new().embeddings(softprompt.clone()).text(&cases.prompt_ids);
    let config = GenerateConfig::greedy(cases.greedy_no_adapter.len());
    let tokens = decoder.generate(&prompt, &config, NoAdapter).unwrap().map(Result::unwrap).collect();
    (values(softprompt), tokens)
}

#[test]
fn gpu_agrees_with_the_cpu() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens");
    for name in ["smollm-gqa-tied", "qwen3-qknorm"] {
        let folder = goldens.join(name);
        let cases: Cases = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
        let (expected, tokens) = run(&folder, &cases, &Device::flex());
        let (found, gpu_tokens) = run(&folder, &cases, &gpu());
        let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(expected.len(), found.len());
        assert!(worst < 1e-3, "{name}: summary vectors differ by {worst:e}");
        assert_eq!(tokens, cases.greedy_no_adapter, "{name} on the CPU");
        assert_eq!(gpu_tokens, cases.greedy_no_adapter, "{name} on the GPU");
    }
}

/// One step of training with every loss: its loss, and the norm of its gradients.
fn step(device: &Device, weights: WeightType) -> (f64, f64) {
    let (decoder, dir) = (tiny_decoder_on(device, weights), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut settings = curriculum();
    settings.stages = settings.stages.split_off(2);
    let mut trainer = CompressorTrainer::new(&decoder, BASE, settings, &corpus, &Bytes).unwrap();
    let step = trainer.step().unwrap();
    (step.loss, step.grad_norm)
}

/// bf16 keeps eight significant bits: 1 % of the loss, and 5 % of the gradients' norm, are what rounding may cost.
#[test]
fn a_step_of_training_in_bf16_agrees_with_the_cpu() {
    let (loss, norm) = step(&Device::flex(), WeightType::F32);
    let (gpu_loss, gpu_norm) = step(&gpu(), WeightType::Bf16);
    assert!((gpu_loss - loss).abs() < 0.01 * loss, "loss {gpu_loss}, {loss} on the CPU");
    assert!((gpu_norm - norm).abs() < 0.05 * norm, "norm of the gradients {gpu_norm}, {norm} on the CPU");
}

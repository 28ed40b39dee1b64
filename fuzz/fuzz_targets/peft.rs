//! An adapter directory: the bytes before the first NUL as `adapter_config.json`, the rest as weights.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lloco_fuzz::{config, with_files};
use lloco_lora::Adapter;

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (settings, weights) = bytes.split_at(end);
    let weights = weights.get(1..).unwrap_or_default();
    with_files(&[("adapter_config.json", settings), ("adapter_model.safetensors", weights)], |directory| {
        let device = lloco_core::device("cpu").expect("the CPU");
        let _ = Adapter::load(directory, &config(), &device);
    });
});

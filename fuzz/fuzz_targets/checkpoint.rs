//! A safetensors checkpoint: any bytes as `model.safetensors` beside a good `config.json`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lloco_decoder::{Checkpoint, Decoder, WeightType};
use lloco_fuzz::{CONFIG, with_files};

fuzz_target!(|bytes: &[u8]| {
    with_files(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", bytes)], |directory| {
        let Ok(checkpoint) = Checkpoint::open(directory) else { return };
        let device = lloco_core::device("cpu").expect("the CPU");
        let _ = (checkpoint.fingerprint(), checkpoint.tokenizer());
        let _ = Decoder::load(&checkpoint, WeightType::F32, &device);
    });
});

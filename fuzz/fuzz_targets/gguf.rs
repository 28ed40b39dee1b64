//! A GGUF file: header, metadata, tokenizer, every tensor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lloco_decoder::{Checkpoint, gguf::Gguf};
use lloco_fuzz::with_files;

fuzz_target!(|bytes: &[u8]| {
    with_files(&[("model.gguf", bytes)], |directory| {
        let path = directory.join("model.gguf");
        let Ok(file) = Gguf::open(&path) else { return };
        for key in file.keys() {
            let _ = file.metadata(key);
        }
        for tensor in file.tensors() {
            let _ = file.tensor_values(tensor.name());
        }
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            let _ = checkpoint.tokenizer();
        }
    });
});

//! A data set in JSON Lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lloco_fuzz::with_files;

fuzz_target!(|bytes: &[u8]| {
    with_files(&[("data.jsonl", bytes)], |directory| {
        let _ = lloco_core::dataset::read(directory.join("data.jsonl"));
    });
});

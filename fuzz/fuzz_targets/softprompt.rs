//! A softprompt file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lloco_fuzz::with_files;

fuzz_target!(|bytes: &[u8]| {
    with_files(&[("softprompt.safetensors", bytes)], |directory| {
        let device = lloco_core::device("cpu").expect("the CPU");
        let _ = lloco_core::softprompt::load(directory.join("softprompt.safetensors"), &device);
    });
});

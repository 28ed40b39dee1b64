//! A dense index: what opens must also answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lloco_fuzz::with_files;
use lloco_retrieval::DenseIndex;

fuzz_target!(|bytes: &[u8]| {
    with_files(&[("dense.index", bytes)], |directory| {
        let Ok(index) = DenseIndex::open(directory.join("dense.index"), "fingerprint") else { return };
        let _ = index.verify();
        let _ = index.search(&vec![1.0; index.dim().min(1 << 16)], 3);
    });
});

//! A spilled cache holds what any other holds, wherever it lies.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    env, fs,
    process::{Command, Output},
};

use common::decoder_of;
use lloco_decoder::{
    Decoder, KvCache, Pass, WeightType,
    burn::tensor::{Tensor, TensorData},
};

/// Set for the process that works without a temporary directory.
const CHILD: &str = "LLOCO_TEST_SPILLED";

/// Positions of a pass, and how many of them stay.
const PASSES: [(usize, usize); 6] = [(40, 0), (70, 5), (3, 3), (90, 20), (1, 0), (100, 80)];

/// Bytes in memory: none, those of the first passes, all.
const LIMITS: [usize; 3] = [0, 10_000, 1 << 20];

fn input(decoder: &Decoder, batch: usize, positions: usize, seed: u32) -> Tensor<3> {
    let ids: Vec<u32> = (0..positions as u32).map(|i| (i * 7 + seed * 13 + 3) % 51).collect();
    decoder.embed(&ids).unwrap().repeat_dim(0, batch)
}

/// The hidden rows of all passes.
fn read(decoder: &Decoder, mut cache: KvCache, batch: usize) -> Vec<TensorData> {
    let mut len = 0;
    let mut pass = |(seed, (positions, kept)): (u32, (usize, usize))| {
        let how = Pass::new().cache(&mut cache).keep(kept).last_rows(30);
        let hidden = decoder.forward(input(decoder, batch, positions, seed), how).unwrap();
        len += kept;
        assert_eq!(cache.len(), len);
        hidden.into_data()
    };
    (0..).zip(PASSES).map(&mut pass).collect()
}

#[test]
fn a_spilled_cache_reads_as_any_other() {
    for weights in [WeightType::F32, WeightType::Bf16] {
        let decoder = decoder_of(weights);
        for batch in [1, 3] {
            let wanted = read(&decoder, KvCache::new(&decoder, batch, 300), batch);
            for limit in LIMITS {
                let found = read(&decoder, KvCache::spilled(&decoder, batch, 0, limit), batch);
                assert!(found == wanted, "{weights:?}, {batch} sequences, {limit} bytes in memory");
            }
        }
    }
}

#[test]
fn a_spilled_cache_forgets_and_keeps_all_if_nothing_else_is_said() {
    let decoder = decoder_of(WeightType::F32);
    for limit in LIMITS {
        let caches = [KvCache::spilled(&decoder, 1, 64, limit), KvCache::new(&decoder, 1, 64)];
        let [found, wanted] = caches.map(|mut cache| {
            let mut read = |positions, seed| {
                decoder.forward(input(&decoder, 1, positions, seed), Pass::new().cache(&mut cache)).unwrap();
                cache.len()
            };
            assert_eq!([read(20, 1), read(7, 2)], [20, 27]);
            cache.truncate(9);
            decoder.forward(input(&decoder, 1, 7, 3), Pass::new().cache(&mut cache)).unwrap().into_data()
        });
        assert_eq!(found, wanted, "{limit} bytes in memory");
    }
}

/// In a process of its own, whose temporary directory is not there.
#[cfg(unix)]
#[test]
fn without_a_directory_for_files_memory_does() {
    if env::var_os(CHILD).is_some() {
        let decoder = decoder_of(WeightType::F32);
        let wanted = read(&decoder, KvCache::new(&decoder, 1, 300), 1);
        assert!(read(&decoder, KvCache::spilled(&decoder, 1, 0, 0), 1) == wanted);
        return;
    }
    let missing = tempfile::tempdir().unwrap().path().join("none");
    assert!(fs::metadata(&missing).is_err());
    let Output { status, stderr, .. } = Command::new(env::current_exe().unwrap())
        .args(["--exact", "without_a_directory_for_files_memory_does"])
        .env(CHILD, "1")
        .env("TMPDIR", &missing)
        .output()
        .unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

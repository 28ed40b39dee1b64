//! A spilled cache holds what any other holds, wherever it lies.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    env, fs,
    process::{Command, Output},
};

use common::decoder;
use lloco_decoder::{
    Error, KvCache, Pass,
    burn::tensor::{Tensor, TensorData},
};

/// So many positions of the tiny model take a file.
const FILED: usize = 1 << 17;
/// Set for the process that works without a temporary directory.
const CHILD: &str = "LLOCO_TEST_SPILLED";

/// Positions of a pass, and how many of them stay.
const PASSES: [(usize, usize); 6] = [(40, 0), (70, 5), (3, 3), (90, 20), (1, 0), (130, 100)];

fn input(batch: usize, positions: usize, seed: u32) -> Tensor<3> {
    let ids: Vec<u32> = (0..positions as u32).map(|i| (i * 7 + seed * 13 + 3) % 51).collect();
    decoder().embed(&ids).unwrap().repeat_dim(0, batch)
}

/// The hidden rows of all passes.
fn read(mut cache: KvCache, batch: usize) -> Vec<TensorData> {
    let (decoder, mut len) = (decoder(), 0);
    let mut pass = |(seed, (positions, kept)): (u32, (usize, usize))| {
        let how = Pass::new().cache(&mut cache).keep(kept).last_rows(30);
        let hidden = decoder.forward(input(batch, positions, seed), how).unwrap();
        len += kept;
        assert_eq!(cache.len(), len);
        hidden.into_data()
    };
    (0..).zip(PASSES).map(&mut pass).collect()
}

#[test]
fn a_spilled_cache_reads_as_any_other() {
    let decoder = decoder();
    for batch in [1, 3] {
        let wanted = read(KvCache::new(&decoder, batch, 300), batch);
        // With room for all, with too little, with none, and in a file.
        for capacity in [128, 30, 0, FILED] {
            let found = read(KvCache::spilled(&decoder, batch, capacity), batch);
            assert!(found == wanted, "{batch} sequences, room for {capacity}");
        }
    }
}

#[test]
fn a_spilled_cache_forgets_and_keeps_all_if_nothing_else_is_said() {
    let decoder = decoder();
    for capacity in [64, FILED] {
        let caches = [KvCache::spilled(&decoder, 1, capacity), KvCache::new(&decoder, 1, 64)];
        let [found, wanted] = caches.map(|mut cache| {
            let mut read = |positions, seed| {
                decoder.forward(input(1, positions, seed), Pass::new().cache(&mut cache)).unwrap();
                cache.len()
            };
            assert_eq!([read(20, 1), read(7, 2)], [20, 27]);
            cache.truncate(9);
            decoder.forward(input(1, 7, 3), Pass::new().cache(&mut cache)).unwrap().into_data()
        });
        assert_eq!(found, wanted, "room for {capacity}");
    }
}

/// In a process of its own, whose temporary directory is not there.
#[cfg(unix)]
#[test]
fn a_missing_directory_is_an_error_and_short_texts_need_none() {
    if env::var_os(CHILD).is_some() {
        let decoder = decoder();
        let mut cache = KvCache::spilled(&decoder, 1, FILED);
        decoder.forward(input(1, 5, 1), Pass::new().cache(&mut cache).keep(0)).unwrap();
        let kept = decoder.forward(input(1, 5, 1), Pass::new().cache(&mut cache).keep(2));
        assert!(matches!(kept, Err(Error::Io { path, .. }) if path == env::temp_dir()));
        assert_eq!(cache.len(), 0);
        decoder.forward(input(1, 5, 1), Pass::new().cache(&mut KvCache::spilled(&decoder, 1, 9))).unwrap();
        return;
    }
    let missing = tempfile::tempdir().unwrap().path().join("none");
    assert!(fs::metadata(&missing).is_err());
    let Output { status, stderr, .. } = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_missing_directory_is_an_error_and_short_texts_need_none"])
        .env(CHILD, "1")
        .env("TMPDIR", &missing)
        .output()
        .unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

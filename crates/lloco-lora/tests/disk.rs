//! Files that really cannot grow, in the middle of a checkpoint.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{busy_adapter, child, examples, tiny_decoder, to_vec};
use lloco_decoder::Decoder;
use lloco_lora::{Error, LoraConfig, TrainConfig, Trainer};

fn trainer(decoder: &Decoder) -> Trainer<'_> {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.1).with_all_linear();
    let config = TrainConfig::default().with_lora(lora).with_batches(2, 2);
    let adapter = busy_adapter(&config.lora, 1);
    Trainer::new(decoder, config, examples(11)).unwrap().with_adapter(adapter)
}

/// Every file below a directory and what it holds.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// The child: goes on from step 1 and cannot write the moments of step 2.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Some(dir) = child::dir() else { return };
    let decoder = tiny_decoder();
    let mut run = trainer(&decoder);
    assert!(run.resume(&dir).unwrap());
    run.step().unwrap();
    match run.save(&dir) {
        Err(Error::Io { action: "write", path, .. }) => {
            assert_eq!(path.file_name().unwrap(), "optimizer.safetensors", "the adapter before it was written");
        }
        other => panic!("{other:?}"),
    }
    println!("finished");
}

#[test]
fn a_checkpoint_that_does_not_fit_leaves_the_one_before_and_the_run_goes_on() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut first = trainer(&decoder);
    first.step().unwrap();
    let checkpoint = first.save(dir.path()).unwrap();
    let before = contents(dir.path());

    // Between adapter and moments, whether the shell counts blocks of 512 bytes or of 1,024.
    let size = |name: &str| fs::metadata(checkpoint.join(name)).unwrap().len();
    let blocks = size("adapter_model.safetensors").div_ceil(512);
    assert!(blocks * 1024 < size("optimizer.safetensors"));
    let text = child::on_a_full_disk("child", dir.path(), blocks);
    assert!(text.contains("finished"), "{text}");

    assert_eq!(contents(dir.path()), before, "the checkpoint before is whole, and no draft is left");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let mut again = trainer(&decoder);
    assert!(again.resume(dir.path()).unwrap());
    assert_eq!(again.step().unwrap().loss, first.step().unwrap().loss);
    again.save(dir.path()).unwrap();
    for (name, tensor) in again.adapter().parameters() {
        assert_eq!(to_vec(tensor), to_vec(first.adapter().parameters()[&name].clone()), "{name}");
    }
}

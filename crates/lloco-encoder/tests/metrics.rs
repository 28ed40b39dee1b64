//! What remains of a run's metrics after a kill.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, io::Write, ops::ControlFlow, path::Path};

use common::{BASE, Bytes, curriculum, jsonl, tiny_decoder};
use lloco_encoder::{CompressorTrainer, TrainingEvent};
use serde_json::Value;

/// The steps of the lines that tell of one.
fn steps(dir: &Path) -> Vec<u64> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("loss").is_some()).map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_run_killed_before_its_first_checkpoint_tells_each_step_once() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let run = dir.path().join("run");
    let mut settings = curriculum();
    settings.save_every = 1000;
    let begin = || CompressorTrainer::new(&decoder, BASE, settings.clone(), &corpus, &Bytes).unwrap();
    // Breaking off without the checkpoint that would come with it is what a kill does.
    let mut first = begin();
    let kill = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        first.run(&run, None, &mut |event| match event {
            TrainingEvent::Step(step) if step.step == 2 => std::panic::panic_any("killed"),
            _ => ControlFlow::Continue(()),
        })
    }));
    assert!(kill.is_err());
    assert_eq!(steps(&run), [1, 2]);
    let mut file = fs::OpenOptions::new().append(true).open(run.join("metrics.jsonl")).unwrap();
    file.write_all(b"{\"step\": 3, \"lo").unwrap();
    let mut second = begin();
    assert!(!second.resume(&run).unwrap());
    second.run(&run, None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(steps(&run), (1..=14).collect::<Vec<_>>());
}

//! A run that is killed again and again ends as one that never was.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeMap, fs, io::Write, ops::ControlFlow};

use common::{busy_adapter, child, examples, tiny_decoder, to_vec};
use lloco_decoder::Decoder;
use lloco_lora::{Event, LoraConfig, TrainConfig, Trainer};

fn trainer(decoder: &Decoder) -> Trainer<'_> {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.1);
    let mut config = TrainConfig::default().with_lora(lora).with_batches(2, 2).with_epochs(12);
    config.save_every = 1;
    let adapter = busy_adapter(&config.lora, 1);
    Trainer::new(decoder, config, examples(11)).unwrap().with_adapter(adapter)
}

/// The child: goes on with the run and writes each loss down.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Some(dir) = child::dir() else { return };
    let decoder = tiny_decoder();
    let mut trainer = trainer(&decoder);
    trainer.resume(dir.join("run")).unwrap();
    let mut log = child::log(&dir);
    let outcome = trainer.run(Some(&dir.join("run")), &mut |event| {
        if let Event::Step(report) = event {
            writeln!(log, "{} {}", report.step, report.loss.to_bits()).unwrap();
        }
        ControlFlow::Continue(())
    });
    outcome.unwrap();
    trainer.adapter().save(dir.join("adapter"), lloco_lora::StoredType::F32).unwrap();
}

#[test]
fn a_run_killed_at_any_instant_keeps_its_losses() {
    let decoder = tiny_decoder();
    let mut straight = trainer(&decoder);
    let expected: Vec<u64> = (0..straight.steps()).map(|_| straight.step().unwrap().loss.to_bits()).collect();
    let dir = tempfile::tempdir().unwrap();
    child::killed("child", dir.path(), &dir.path().join("adapter"), 6, 4);
    // Steps that were lost and done again have the same loss as well.
    let mut seen = BTreeMap::new();
    for (step, loss) in child::losses(dir.path()) {
        assert_eq!(loss, expected[step - 1], "step {step}");
        *seen.entry(step).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), expected.len());
    // The metrics tell each step once.
    let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let steps = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps: Vec<u64> = steps.map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=expected.len() as u64).collect::<Vec<_>>());
    let adapter =
        lloco_lora::Adapter::load(dir.path().join("adapter"), &common::tiny_config(), decoder.device()).unwrap();
    for (name, tensor) in straight.adapter().parameters() {
        assert_eq!(to_vec(adapter.parameters()[&name].clone()), to_vec(tensor), "{name}");
    }
}

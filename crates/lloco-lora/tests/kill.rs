//! A run that is killed again and again ends as one that never was.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{busy_adapter, examples, tiny_decoder, to_vec};
use lloco_decoder::Decoder;
use lloco_lora::{Event, LoraConfig, TrainConfig, Trainer};

/// Names the run's directory to the child process.
const DIR: &str = "LLOCO_LORA_KILL_DIR";

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
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let decoder = tiny_decoder();
    let mut trainer = trainer(&decoder);
    trainer.resume(dir.join("run")).unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open(dir.join("losses")).unwrap();
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
    let mut kills = 0;
    while !dir.path().join("adapter").exists() {
        let before = lines(dir.path()).len();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Some steps later, at a moment that differs from one round to the next.
        let start = Instant::now();
        while lines(dir.path()).len() < before + 4 && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "the child does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        if kills < 6 {
            std::thread::sleep(Duration::from_micros(3100 * kills));
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        } else {
            assert!(child.wait().unwrap().success());
        }
    }
    // Steps that were lost and done again have the same loss as well.
    let mut seen = BTreeMap::new();
    for (step, loss) in lines(dir.path()) {
        assert_eq!(loss, expected[step - 1], "step {step}");
        *seen.entry(step).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), expected.len());
    assert_eq!(kills, 6);
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

/// Steps and losses so far; a line cut short by the kill is left out.
fn lines(dir: &Path) -> Vec<(usize, u64)> {
    let text = fs::read_to_string(dir.join("losses")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| line.split_once(' ').map(|(step, loss)| (step.parse().unwrap(), loss.parse().unwrap()));
    whole.lines().filter_map(parse).collect()
}

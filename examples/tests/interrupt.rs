//! Ctrl-C: a training saves and stops, and the same command goes on.
#![cfg(all(unix, feature = "flex"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use common::{json, model_with_tokenizer, repository, start, text};
use serde_json::{Value, json as value};

const LINE: &str =
    r#"{"id":"log","text":"Kept by Ilves.","questions":[{"question":"Who kept the log?","answers":["Ilves"]}]}"#;

/// Waits for something that the program does, and interrupts it as a terminal does.
fn interrupted(mut child: Child, when: impl Fn() -> bool) -> Output {
    let begun = Instant::now();
    while !when() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended too early");
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing happens");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

#[test]
fn an_interrupted_training_saves_and_goes_on() {
    let work = tempfile::tempdir().unwrap();
    let (model, out, data) =
        (model_with_tokenizer(work.path()), work.path().join("run"), work.path().join("data.jsonl"));
    fs::write(&data, LINE).unwrap();
    let curriculum = work.path().join("curriculum.json");
    let stages = r#"[{"name": "long", "steps": 100000, "batch": 1, "context": 8, "documents": 1, "ratios": [4],
        "losses": {"reconstruction": 1.0}}]"#;
    let mode = r#"{"pooled": {"segment_length": 8, "ratios": [4]}}"#;
    let shape = r#"{"r": 2, "lora_alpha": 4}"#;
    let json_text = format!(
        r#"{{"mode": {mode}, "encoder": {shape}, "reader": {{"own": {shape}}}, "micro_batch": 1, "stages": {stages}}}"#
    );
    fs::write(&curriculum, json_text).unwrap();
    let given =
        ["--model", text(&model), "--curriculum", text(&curriculum), "--data", text(&data), "--out", text(&out)];
    let metrics = out.join("metrics.jsonl");
    let output = interrupted(start("train", &[&given[..], &["--json"]].concat()), || metrics.exists());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("stopping after this step"), "{:?}: {said}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let step = report["step"].as_u64().unwrap();
    assert_eq!((report["finished"].as_bool(), step > 0, step < 100_000), (Some(false), true, true));
    assert!(fs::read_dir(out.join("checkpoints")).unwrap().count() > 0, "nothing is saved");
    let rest = json("train", &[&given[..], &["--steps", "1"]].concat());
    assert_eq!((&rest["step"], &rest["steps"]), (&value!(step + 1), &value!(1)));
}

#[test]
fn an_interrupted_finetuning_saves_and_goes_on() {
    let work = tempfile::tempdir().unwrap();
    let (model, store, data) =
        (model_with_tokenizer(work.path()), work.path().join("store"), work.path().join("data.jsonl"));
    fs::write(&data, LINE).unwrap();
    let embedder = repository("crates/lloco-retrieval/tests/data/tiny-bert");
    let library = ["--store", text(&store), "--model", text(&model), "--embedder", text(&embedder)];
    json("ingest", &[&library[..], &["--data", text(&data)]].concat());
    let learn = [&library[..], &["--questions", text(&data), "--rank", "2", "--epochs", "1000000"]].concat();
    let newest = || -> Option<String> {
        let run = fs::read_dir(store.join("runs")).ok()?.next()?.ok()?.path();
        fs::read_dir(run).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).max()
    };
    for _ in 0..2 {
        let before = newest();
        let output = interrupted(start("finetune", &learn), || newest() > before);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("stopping after this step") && said.contains("interrupted"), "{said}");
        assert!(output.stdout.is_empty() && newest() > before);
    }
    let group = json("store", &["--store", text(&store), "groups"])[0].clone();
    assert_eq!(group["adapter"], Value::Null, "a part of a training became an adapter");
}

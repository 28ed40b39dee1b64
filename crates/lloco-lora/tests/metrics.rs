//! What a run leaves beside its checkpoints, and what remains of it after a kill.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, io::Write, ops::ControlFlow, path::Path};

use common::{busy_adapter, examples, noise, tiny_decoder};
use lloco_decoder::Decoder;
use lloco_lora::{Error, Event, Example, LoraConfig, TrainConfig, Trainer, finetune::Teacher, metrics::Metrics};
use serde_json::{Value, json};

/// Six steps.
fn trainer(decoder: &Decoder, save_every: usize, examples: Vec<Example>) -> Trainer<'_> {
    let lora = LoraConfig::default().with_rank(3, 6.0).with_dropout(0.0);
    let mut config = TrainConfig::default().with_lora(lora).with_batches(2, 2).with_epochs(2);
    config.save_every = save_every;
    let adapter = busy_adapter(&config.lora, 1);
    Trainer::new(decoder, config, examples).unwrap().with_adapter(adapter)
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The steps of the lines that tell of one.
fn steps(dir: &Path) -> Vec<u64> {
    let told = lines(dir).into_iter().filter(|line| line.get("loss").is_some());
    told.map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_run_leaves_a_line_a_step_and_the_curves() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("not there yet/run");
    let teach = |example: Example| {
        let rows = noise([example.answer_ids.len(), 32], 5).mul_scalar(8.0);
        example.with_teacher(Teacher::new(&decoder, &rows, 6).unwrap())
    };
    let taught = examples(11).into_iter().map(teach).collect();
    let mut trainer = trainer(&decoder, 100, taught).with_held_out(examples(13).split_off(11)).unwrap();
    let (mut reports, mut scores) = (Vec::new(), Vec::new());
    let outcome = trainer.run(Some(&run), &mut |event| {
        match event {
            Event::Step(report) => reports.push(report.clone()),
            Event::Evaluated { step, evaluation, .. } => scores.push((*step, evaluation.nll, evaluation.tokens)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    outcome.unwrap();
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let (judged, told): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("evaluation"));
    let reported: Vec<String> = reports.iter().map(|report| serde_json::to_string(report).unwrap()).collect();
    assert_eq!((told.len(), told), (6, reported.iter().map(String::as_str).collect()));
    for line in lines(&run).into_iter().filter(|line| line.get("loss").is_some()) {
        for key in ["step", "of", "loss", "divergence", "grad_norm", "tokens", "positions", "seconds"] {
            assert!(line[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {line}");
        }
        assert!(line["learning_rate"].is_f64(), "{line}");
    }
    let scored = scores
        .iter()
        .map(|(step, nll, tokens)| json!({"step": step, "evaluation": {"nll": nll, "tokens": tokens}}).to_string());
    assert_eq!((judged.len(), judged), (2, scored.collect::<Vec<_>>().iter().map(String::as_str).collect()));
    let svg = fs::read_to_string(run.join("curves.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for curve in [">\nloss\n<", ">\ndivergence\n<", ">\nheld-out loss\n<"] {
        assert!(svg.contains(curve), "{curve:?}: {svg}");
    }
}

#[test]
fn without_a_teacher_no_line_speaks_of_divergence() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    trainer(&decoder, 100, examples(11)).run(Some(dir.path()), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(lines(dir.path()).iter().all(|line| line.get("divergence").is_none()));
}

#[test]
fn a_run_killed_at_any_step_tells_each_step_once() {
    let decoder = tiny_decoder();
    // Before the first checkpoint, and behind one.
    for (save_every, killed_at) in [(100, 1), (100, 4), (2, 3), (2, 5)] {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        // Breaking off without the checkpoint that would come with it is what a kill does.
        let mut first = trainer(&decoder, save_every, examples(11));
        let kill = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            first.run(Some(&run), &mut |event| match event {
                Event::Step(report) if report.step == killed_at => std::panic::panic_any("killed"),
                _ => ControlFlow::Continue(()),
            })
        }));
        assert!(kill.is_err());
        assert_eq!(steps(&run), (1..=killed_at as u64).collect::<Vec<_>>());
        // The next line was cut short, in the middle of a character.
        let mut file = fs::OpenOptions::new().append(true).open(run.join("metrics.jsonl")).unwrap();
        file.write_all("{\"step\": 7, \"name\": \"é".as_bytes().split_last().unwrap().1).unwrap();
        let mut second = trainer(&decoder, save_every, examples(11));
        assert_eq!(second.resume(&run).unwrap(), save_every < killed_at);
        second.run(Some(&run), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(steps(&run), [1, 2, 3, 4, 5, 6], "save_every {save_every}, killed at {killed_at}");
    }
}

#[test]
fn rewinding_keeps_what_was_measured_up_to_the_step_word_for_word() {
    let dir = tempfile::tempdir().unwrap();
    let (metrics, file) = (Metrics::new(dir.path()), dir.path().join("metrics.jsonl"));
    metrics.rewind(3).unwrap();
    assert!(!file.exists());
    let kept = "{\"step\":1, \"loss\":  2.50}\n{\"of\":9,\"step\":2}\n{\"step\":2,\"evaluation\":{\"nll\":1e0}}\n";
    fs::write(&file, format!("{kept}nonsense\n{{\"step\":3}}\n{{\"step\":1,\"lo")).unwrap();
    metrics.rewind(2).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    metrics.append(&json!({"step": 3, "loss": f64::NAN})).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{kept}{{\"loss\":null,\"step\":3}}\n"));
    // A line that lacks nothing but its end would swallow the next one all the same.
    fs::write(&file, format!("{kept}{{\"step\":1}}")).unwrap();
    metrics.rewind(2).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    metrics.rewind(0).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn a_drawing_that_cannot_be_written_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new(dir.path());
    let points = |line: &Value| line["loss"].as_f64().map(|loss| ("loss".to_owned(), loss));
    // No steps, and a loss that is no number, make a drawing as well.
    metrics.draw(points).unwrap();
    metrics.append(&json!({"step": 1, "loss": f64::NAN})).unwrap();
    metrics.draw(points).unwrap();
    let before = fs::read_to_string(dir.path().join("curves.svg")).unwrap();
    metrics.append(&json!({"step": 2, "loss": 2.0})).unwrap();
    fs::create_dir(dir.path().join(".curves.svg.partial")).unwrap();
    assert!(matches!(metrics.draw(points), Err(Error::Io { action: "write", .. })));
    assert_eq!(fs::read_to_string(dir.path().join("curves.svg")).unwrap(), before);
    fs::remove_dir(dir.path().join(".curves.svg.partial")).unwrap();
    metrics.draw(points).unwrap();
    assert_ne!(fs::read_to_string(dir.path().join("curves.svg")).unwrap(), before);
}

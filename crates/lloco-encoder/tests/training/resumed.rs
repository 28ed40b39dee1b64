//! A run that stops and goes on, by itself or killed.

use std::{collections::BTreeMap, fs, io::Write, ops::ControlFlow, path::Path};

use lloco_encoder::{
    Compressor, CompressorTrainer, Corpus, Curriculum, EncoderOptions, Error, TrainingEvent, TrainingOutcome,
};
use serde_json::Value;

use crate::{
    common::{BASE, CURRICULUM, auto_curriculum, child, curriculum, jsonl, tiny_decoder, values, worst},
    full, go_on, trainer,
};

#[test]
fn a_run_in_parts_is_the_run_in_one_go() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let auto = auto_curriculum();
    for (name, json) in [("pooled", CURRICULUM), ("auto", auto.as_str()), ("full", &full())] {
        let curriculum = Curriculum::from_json(json, "c.json").unwrap();
        let mut straight = trainer(&decoder, &corpus, curriculum.clone());
        let expected: Vec<u64> = (0..14).map(|_| straight.step().unwrap().loss.to_bits()).collect();
        let run = dir.path().join(name);
        let mut found = Vec::new();
        loop {
            let mut part = trainer(&decoder, &corpus, curriculum.clone());
            part.resume(&run).unwrap();
            let outcome = part.run(&run, Some(5), &mut |event| {
                if let TrainingEvent::Step(step) = event {
                    found.push(step.loss.to_bits());
                }
                ControlFlow::Continue(())
            });
            if outcome.unwrap() == TrainingOutcome::Finished {
                break;
            }
        }
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn breaking_off_saves() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut settings = curriculum();
    settings.save_every = 1000;
    let mut first = trainer(&decoder, &corpus, settings.clone());
    let stop = |event: &TrainingEvent| match event {
        TrainingEvent::Step(step) if step.step == 4 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(first.run(dir.path(), None, &mut { stop }).unwrap(), TrainingOutcome::Interrupted);
    let mut second = trainer(&decoder, &corpus, settings.clone());
    assert!(second.resume(dir.path()).unwrap());
    assert_eq!(second.steps_done(), 4);
    // A new run must not take over the directory, nor one of other settings or data go on there.
    let mut fresh = trainer(&decoder, &corpus, settings.clone());
    assert!(matches!(
        fresh.run(dir.path(), None, &mut go_on),
        Err(Error::Lora(lloco_lora::Error::CheckpointAhead { .. }))
    ));
    // More stages behind the others are welcome, fewer are not.
    let mut longer = settings.clone();
    longer.stages.push(longer.stages[0].clone());
    let mut third = trainer(&decoder, &corpus, longer);
    assert!(third.resume(dir.path()).unwrap());
    assert_eq!(third.steps_done(), 4);
    let mut shorter = settings.clone();
    shorter.stages.pop();
    let found = trainer(&decoder, &corpus, shorter).resume(dir.path());
    assert!(
        matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "curriculum.stages"),
        "{found:?}"
    );
    settings.stages[1].losses.continuation = 0.4;
    let found = trainer(&decoder, &corpus, settings).resume(dir.path());
    assert!(
        matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field.ends_with("losses.continuation")),
        "{found:?}"
    );
    let other = tempfile::tempdir().unwrap();
    let corpus = jsonl(other.path(), 6);
    let mut same = curriculum();
    same.save_every = 1000;
    let found = trainer(&decoder, &corpus, same).resume(dir.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "data"), "{found:?}");
}

#[test]
fn a_checkpoint_of_a_newer_layout_is_said_to_be_one() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    trainer(&decoder, &corpus, curriculum()).run(dir.path(), Some(1), &mut go_on).unwrap();
    let file = dir.path().join("checkpoints/step-00000001/trainer.json");
    let newer = fs::read_to_string(&file).unwrap().replace("\"format\": 1", "\"format\": 2, \"more\": 0");
    fs::write(&file, newer).unwrap();
    let found = trainer(&decoder, &corpus, curriculum()).resume(dir.path());
    assert!(
        matches!(&found, Err(Error::CheckpointMismatch { field, found, .. }) if field == "format" && found == "2"),
        "{found:?}"
    );
}

#[test]
fn a_byte_order_mark_in_front_of_the_data_is_no_part_of_it() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let plain = jsonl(dir.path(), 7);
    let marked = dir.path().join("marked.jsonl");
    fs::write(&marked, ["\u{feff}".as_bytes(), &fs::read(dir.path().join("data.jsonl")).unwrap()].concat()).unwrap();
    let marked = Corpus::open(&[marked]).unwrap();
    let losses = |corpus: &Corpus| {
        let mut run = trainer(&decoder, corpus, curriculum());
        (0..3).map(|_| run.step().unwrap().loss.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(losses(&plain), losses(&marked));
}

#[test]
fn a_resumed_run_takes_lower_learning_rates_for_what_is_left_and_no_higher_ones() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut settings = curriculum();
    // A number that a careless reader takes for its neighbour, 0.0012.
    settings.stages[1].learning_rates.encoder = 0.4 * 3e-3;
    trainer(&decoder, &corpus, settings.clone()).run(dir.path(), Some(4), &mut go_on).unwrap();
    let mut same = trainer(&decoder, &corpus, settings.clone());
    assert!(same.resume(dir.path()).unwrap());

    let mut lower = settings.clone();
    lower.stages[1].learning_rates.encoder /= 2.0;
    lower.stages[2].learning_rates.reader = 0.0;
    let mut slower = trainer(&decoder, &corpus, lower);
    assert!(slower.resume(dir.path()).unwrap());
    assert_eq!(slower.steps_done(), 4);
    // The step's loss is of the weights before it: the rate shows in the one behind it.
    let losses = |trainer: &mut CompressorTrainer<'_>| [(); 2].map(|()| trainer.step().unwrap().loss);
    let ([first, second], [one, two]) = (losses(&mut same), losses(&mut slower));
    assert!(first == one && second != two, "{first} {second}, {one} {two}");

    let refused = |stage: usize, factor: f64| {
        let mut other = settings.clone();
        other.stages[stage].learning_rates.connector *= factor;
        let found = trainer(&decoder, &corpus, other).resume(dir.path());
        let field = format!("curriculum.stages[{stage}].learning_rates.connector");
        assert!(matches!(&found, Err(Error::CheckpointMismatch { field: named, .. }) if *named == field), "{found:?}");
    };
    refused(1, 1.5);
    // A stage that is done is what it was.
    refused(0, 0.5);
    // The error names the rate that was raised, not the lower one before it.
    let mut mixed = settings.clone();
    mixed.stages[1].learning_rates.connector /= 2.0;
    mixed.stages[1].learning_rates.encoder /= 2.0;
    mixed.stages[1].learning_rates.reader *= 2.0;
    let found = trainer(&decoder, &corpus, mixed).resume(dir.path());
    let field = "curriculum.stages[1].learning_rates.reader";
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field: named, .. }) if named == field), "{found:?}");
    // Once a checkpoint is written at the lower rates, these are the run's.
    slower.run(dir.path(), Some(1), &mut go_on).unwrap();
    let found = trainer(&decoder, &corpus, settings).resume(dir.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { .. })), "{found:?}");
}

/// Copies a run's directory as a process killed now would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy(&entry, &target),
            false => drop(fs::copy(&entry, &target).unwrap()),
        }
    }
}

/// What a run's metrics say, apart from the time that it took.
fn told(dir: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    };
    lines.lines().map(line).collect()
}

#[test]
fn an_evaluation_lost_behind_its_checkpoint_is_made_up_for_by_the_resumed_run() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut settings = curriculum();
    (settings.evaluate_every, settings.save_every) = (5, 1000);
    let run = dir.path().join("run");
    // Behind a stage, within one, and behind all.
    let steps = [3, 5, 8, 10, 14];
    let killed = |step: usize| dir.path().join(format!("killed {step}"));
    let outcome = trainer(&decoder, &corpus, settings.clone()).run(&run, None, &mut |event| {
        if let TrainingEvent::Saved { path } = event {
            let name = path.file_name().unwrap().to_str().unwrap();
            copy(&run, &killed(name.trim_start_matches("step-").parse().unwrap()));
        }
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap(), TrainingOutcome::Finished);
    // Whoever sees the evaluation may break off there.
    let again = dir.path().join("again");
    copy(&killed(8), &again);
    let mut rest = trainer(&decoder, &corpus, settings.clone());
    rest.resume(&again).unwrap();
    let outcome = rest.run(&again, None, &mut |_| ControlFlow::Break(()));
    assert_eq!((outcome.unwrap(), rest.steps_done()), (TrainingOutcome::Interrupted, 8));
    for step in steps {
        let mut rest = trainer(&decoder, &corpus, settings.clone());
        assert!(rest.resume(killed(step)).unwrap());
        assert_eq!(rest.steps_done(), step);
        let mut first = None;
        let outcome = rest.run(killed(step), None, &mut |event| {
            first.get_or_insert(matches!(event, TrainingEvent::Evaluated { step: at, .. } if *at == step));
            ControlFlow::Continue(())
        });
        assert_eq!((outcome.unwrap(), first), (TrainingOutcome::Finished, Some(true)), "{step}");
        assert_eq!(told(&killed(step)), told(&run), "{step}");
        // And only once.
        rest.run(killed(step), None, &mut |event| panic!("{event:?}")).unwrap();
    }
}

#[test]
fn a_finished_run_stays_finished_where_the_evaluation_that_it_owes_fails() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let run = dir.path().join("run");
    trainer(&decoder, &corpus, curriculum()).run(&run, None, &mut go_on).unwrap();
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    let short = dir.path().join("short.txt");
    fs::write(&short, "few words").unwrap();
    let short = Corpus::open(&[short]).unwrap();
    let mut done = trainer(&decoder, &corpus, curriculum()).with_held_out(&short);
    assert!(done.resume(&run).unwrap());
    assert!(matches!(done.evaluate(2), Err(Error::NoSample { .. })));
    let outcome = done.run(&run, None, &mut |event| panic!("{event:?}"));
    assert_eq!(outcome.unwrap(), TrainingOutcome::Finished);
}

/// The child: goes on with the run and writes each loss down.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Some(dir) = child::dir() else { return };
    let decoder = tiny_decoder();
    let corpus = Corpus::open(&[dir.join("data.jsonl")]).unwrap();
    let mut trainer = trainer(&decoder, &corpus, curriculum());
    trainer.resume(dir.join("run")).unwrap();
    let mut log = child::log(&dir);
    let outcome = trainer.run(dir.join("run"), None, &mut |event| {
        if let TrainingEvent::Step(step) = event {
            writeln!(log, "{} {}", step.step, step.loss.to_bits()).unwrap();
        }
        ControlFlow::Continue(())
    });
    outcome.unwrap();
    trainer.export(dir.join("compressor")).unwrap();
}

#[test]
fn a_run_killed_at_any_instant_keeps_its_losses() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut straight = trainer(&decoder, &corpus, curriculum());
    let expected: Vec<u64> = (0..14).map(|_| straight.step().unwrap().loss.to_bits()).collect();
    child::killed("resumed::child", dir.path(), &dir.path().join("compressor"), 3, 3);
    // Steps that were lost and done again have the same loss as well.
    let mut seen = BTreeMap::new();
    for (step, loss) in child::losses(dir.path()) {
        assert_eq!(loss, expected[step - 1], "step {step}");
        *seen.entry(step).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 14);
    // The metrics tell each step once.
    let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let steps = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps: Vec<u64> =
        steps.filter(|line| line.get("loss").is_some()).map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=14).collect::<Vec<u64>>());
    let compressor = Compressor::load(dir.path().join("compressor"), &decoder, BASE).unwrap();
    let rows = |compressor: &Compressor| {
        let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
        values(encoder.encode(&[4, 9, 30, 7, 7, 1, 80, 90]).unwrap())
    };
    assert!(worst(&rows(&compressor), &rows(straight.compressor())) < 1e-2);
}

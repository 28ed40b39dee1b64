//! A run that stops and goes on, and which run goes on where.

use std::{fs, ops::ControlFlow};

use lloco_lora::{Error, Event, LoraConfig, Outcome, Trainer};

use crate::{
    common::{busy_adapter, examples, tiny_decoder, to_vec},
    config, losses, trainer,
};

#[test]
fn a_resumed_run_equals_one_that_never_stopped() {
    let decoder = tiny_decoder();
    let config = || config().with_lora(LoraConfig::default().with_rank(3, 6.0).with_dropout(0.1)).with_seed(9);
    let mut straight = trainer(&decoder, config());
    let expected = losses(&mut straight, 6);
    let dir = tempfile::tempdir().unwrap();
    let mut first = trainer(&decoder, config());
    assert!(!first.resume(dir.path().join("nothing yet")).unwrap());
    let mut found = losses(&mut first, 3);
    first.save(dir.path()).unwrap();
    drop(first);
    let mut second = trainer(&decoder, config());
    assert!(second.resume(dir.path()).unwrap());
    assert_eq!(second.steps_done(), 3);
    found.extend(losses(&mut second, 3));
    assert_eq!(found, expected);
    for (name, tensor) in second.adapter().parameters() {
        assert_eq!(to_vec(tensor), to_vec(straight.adapter().parameters()[&name].clone()), "{name}");
    }
}

#[test]
fn a_run_among_distractors_learns_another_thing_and_resumes() {
    let decoder = tiny_decoder();
    let config = config().with_distractors(2);
    let plain = losses(&mut trainer(&decoder, self::config()), 6);
    let mut straight = trainer(&decoder, config.clone());
    let expected = losses(&mut straight, 6);
    assert_ne!(expected, plain);
    let dir = tempfile::tempdir().unwrap();
    let mut first = trainer(&decoder, config.clone());
    let mut found = losses(&mut first, 3);
    first.save(dir.path()).unwrap();
    let mut second = trainer(&decoder, config);
    assert!(second.resume(dir.path()).unwrap());
    found.extend(losses(&mut second, 3));
    assert_eq!(found, expected);
}

#[test]
fn an_interrupted_run_is_saved_and_goes_on() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let stop_at = |stop: usize, trainer: &mut Trainer| {
        let mut seen = Vec::new();
        let outcome = trainer.run(Some(dir.path()), &mut |event| match event {
            Event::Step(report) => {
                seen.push((report.step, report.loss));
                if report.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            _ => ControlFlow::Continue(()),
        });
        (outcome.unwrap(), seen)
    };
    let (outcome, mut seen) = stop_at(2, &mut trainer(&decoder, config()));
    assert_eq!(outcome, Outcome::Interrupted);
    let mut again = trainer(&decoder, config());
    assert!(again.resume(dir.path()).unwrap());
    let (outcome, rest) = stop_at(0, &mut again);
    assert_eq!(outcome, Outcome::Finished);
    seen.extend(rest);
    let expected = losses(&mut trainer(&decoder, config()), 6);
    assert_eq!(seen, (1..).zip(expected).collect::<Vec<_>>());
    // Finished runs have nothing left to do.
    let mut third = trainer(&decoder, config());
    third.resume(dir.path()).unwrap();
    assert_eq!(stop_at(0, &mut third), (Outcome::Finished, Vec::new()));
    // A new run does not write into the directory of one that is further.
    let mut fresh = trainer(&decoder, config());
    let ahead = fresh.run(Some(dir.path()), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(ahead, Err(Error::CheckpointAhead { found: 6, step: 0, .. })));
    assert_eq!(fresh.steps_done(), 0);
}

#[test]
fn only_complete_checkpoints_count() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config());
    for _ in 0..4 {
        run.step().unwrap();
        run.save(dir.path()).unwrap();
    }
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-00000003", "step-00000004"]);
    // A process killed while writing leaves a hidden directory that nobody reads.
    let partial = dir.path().join(".step-00000005.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("trainer.json"), b"{").unwrap();
    let mut again = trainer(&decoder, config());
    again.resume(dir.path()).unwrap();
    assert_eq!(again.steps_done(), 4);
    again.step().unwrap();
    again.save(dir.path()).unwrap();
    assert_eq!(names(), ["step-00000004", "step-00000005"]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config());
    run.step().unwrap();
    let path = run.save(dir.path()).unwrap();
    let field = |mut other: Trainer| match other.resume(dir.path()) {
        Err(Error::CheckpointMismatch { field, .. }) => {
            assert_eq!(other.steps_done(), 0);
            field
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(field(trainer(&decoder, config().with_learning_rate(6e-3))), "learning_rate");
    assert_eq!(field(trainer(&decoder, config().with_lora(LoraConfig::default()))), "lora");
    let others = Trainer::new(&decoder, config(), examples(10)).unwrap().with_adapter(busy_adapter(&config().lora, 1));
    assert_eq!(field(others), "examples");
    let judged = trainer(&decoder, config()).with_held_out(examples(2)).unwrap();
    assert_eq!(field(judged), "held_out");

    let file = path.join("trainer.json");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_eq!(field(trainer(&decoder, config())), "format");
    let damaged = |name: &str, bytes: &[u8]| {
        let kept = fs::read(path.join(name)).unwrap();
        fs::write(path.join(name), bytes).unwrap();
        let result = trainer(&decoder, config()).resume(dir.path());
        fs::write(path.join(name), kept).unwrap();
        assert!(matches!(result, Err(Error::Malformed { .. })), "{name}: {result:?}");
    };
    damaged("trainer.json", &good.as_bytes()[..40]);
    fs::write(&file, &good).unwrap();
    damaged("optimizer.safetensors", b"not a tensor file");
    damaged("adapter_model.safetensors", b"");
    assert!(trainer(&decoder, config()).resume(dir.path()).unwrap());
}

#[test]
fn a_resumed_run_takes_a_lower_learning_rate() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    // A number that a careless reader takes for its neighbour, 0.0012.
    let config = |factor: f64| config().with_learning_rate(factor * (0.4 * 3e-3));
    let mut first = trainer(&decoder, config(1.0));
    first.step().unwrap();
    first.save(dir.path()).unwrap();
    let resumed = |factor: f64| {
        let mut run = trainer(&decoder, config(factor));
        run.resume(dir.path()).map(|found| (found, run.step().unwrap().learning_rate))
    };
    let (same, half) = (resumed(1.0).unwrap(), resumed(0.5).unwrap());
    assert_eq!((same.0, half), (true, (true, same.1 / 2.0)));
    assert_eq!(same.1, first.step().unwrap().learning_rate);
    let found = resumed(1.0 + 1e-15);
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "learning_rate"), "{found:?}");
}

#[test]
fn a_failed_write_leaves_the_last_checkpoint() {
    let decoder = tiny_decoder();
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config());
    run.step().unwrap();
    run.save(dir.path()).unwrap();
    run.step().unwrap();
    // A file stands where the draft would be made.
    fs::write(dir.path().join(".step-00000002.partial"), b"").unwrap();
    assert!(matches!(run.save(dir.path()), Err(Error::Io { action: "write", .. })));
    let mut again = trainer(&decoder, config());
    again.resume(dir.path()).unwrap();
    assert_eq!(again.steps_done(), 1);
}

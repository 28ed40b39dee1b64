//! Examples that are not learned and judge the run.

use std::ops::ControlFlow;

use lloco_lora::{Error, Event, Outcome, Schedule, evaluate, metrics::Metrics};

use crate::{
    common::{examples, tiny_decoder},
    config, trainer,
};

#[test]
fn held_out_examples_pick_the_best_and_stop_the_run() {
    let decoder = tiny_decoder();
    let mut config = config().with_epochs(40).with_learning_rate(5e-2).with_schedule(Schedule::Constant, 0.0);
    config.evaluate_every = 1;
    config.patience = Some(3);
    let held_out = || examples(16).split_off(11);
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config.clone()).with_held_out(held_out()).unwrap();
    let mut scores = Vec::new();
    let outcome = run.run(Some(dir.path()), &mut |event| {
        if let Event::Evaluated { step, evaluation, .. } = event {
            scores.push((evaluation.nll, *step));
        }
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap(), Outcome::StoppedEarly);
    let (nll, step) = scores.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let (best, best_nll, best_step) = run.best().unwrap();
    assert_eq!((best_nll, best_step), (nll, step));
    assert_eq!(step + 3, run.steps_done());
    // A mean over batches cut another way rounds differently in the last digits.
    let rescored = evaluate(&decoder, best, &held_out(), 4).unwrap().nll;
    assert!((rescored - nll).abs() < 1e-6 * nll, "{rescored} against {nll}");
    let mut again = trainer(&decoder, config).with_held_out(held_out()).unwrap();
    again.resume(dir.path()).unwrap();
    assert_eq!(again.best().unwrap().1, nll);
    // Others held out have another best.
    let mut other = trainer(&decoder, again.config().clone()).with_held_out(examples(17).split_off(11)).unwrap();
    let found = other.resume(dir.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "held_out"), "{found:?}");
    assert!(other.best().is_none());
    assert_eq!(again.run(None, &mut |_| ControlFlow::Continue(())).unwrap(), Outcome::StoppedEarly);
}

#[test]
fn every_checkpoint_has_its_evaluation_behind_it() {
    let decoder = tiny_decoder();
    let mut config = config();
    (config.evaluate_every, config.save_every) = (2, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut run = trainer(&decoder, config).with_held_out(examples(13).split_off(11)).unwrap();
    let metrics = Metrics::new(dir.path());
    let mut seen = Vec::new();
    run.run(Some(dir.path()), &mut |event| {
        if let Event::Saved { path } = event {
            let step = path.file_name().unwrap().to_str().unwrap().trim_start_matches("step-").parse().unwrap();
            seen.push((step, metrics.tells(step, "evaluation").unwrap()));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    // So that a run killed here has lost none.
    assert_eq!(seen, (1..=6).map(|step| (step, step % 2 == 0)).collect::<Vec<(usize, bool)>>());
    assert!(metrics.tells(6, "loss").unwrap() && !metrics.tells(7, "loss").unwrap());
}

//! What a run leaves, and what may begin with it.

use std::{fs, ops::ControlFlow};

use lloco_encoder::{Compressor, Curriculum, EncoderOptions, Error, TrainingEvent, TrainingOutcome};

use crate::{
    common::{BASE, curriculum, jsonl, tiny_decoder},
    go_on, trainer,
};

#[test]
fn a_run_leaves_checkpoints_metrics_curves_and_a_compressor() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let corpus = jsonl(dir.path(), 7);
    let mut trainer = trainer(&decoder, &corpus, curriculum());
    let (mut stages, mut evaluations) = (Vec::new(), 0);
    let outcome = trainer.run(dir.path(), None, &mut |event| {
        match event {
            TrainingEvent::Step(step) => stages.push((step.stage.clone(), step.losses.clone())),
            TrainingEvent::Evaluated { .. } => evaluations += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap(), TrainingOutcome::Finished);
    let names: Vec<&str> = stages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [vec!["connector"; 3], vec!["read"; 5], vec!["answer"; 6]].concat());
    assert_eq!(evaluations, 3);
    let losses: Vec<&str> = stages.last().unwrap().1.keys().map(String::as_str).collect();
    assert_eq!(losses, ["answer", "binding", "continuation", "gap", "kl"]);
    let lines = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 14 + 3);
    let svg = fs::read_to_string(dir.path().join("curves.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("reconstruction"));
    let left = fs::read_dir(dir.path().join("checkpoints")).unwrap().count();
    assert_eq!(left, 2);

    trainer.export(dir.path().join("compressor")).unwrap();
    let compressor = Compressor::load(dir.path().join("compressor"), &decoder, BASE).unwrap();
    assert_eq!(compressor.config().steps, 14);
    let kept = Curriculum::from_file(dir.path().join("compressor/curriculum.json")).unwrap();
    assert_eq!(&kept, trainer.curriculum());
    let encoder = compressor.encoder(decoder.clone(), &EncoderOptions::default()).unwrap();
    assert_eq!(encoder.encode(&[3; 40]).unwrap().dims(), [10, 32]);
    assert!(encoder.reader().is_some());
    assert!(matches!(Compressor::load(dir.path().join("compressor"), &decoder, "x"), Err(Error::OtherModel { .. })));
}

/// All weights of a compressor.
fn bytes(compressor: &Compressor) -> Vec<u8> {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("compressor");
    compressor.save(&dir, lloco_lora::StoredType::F32, &[]).unwrap();
    fs::read(dir.join("compressor.safetensors")).unwrap()
}

#[test]
fn a_run_begins_with_a_trained_compressor_on_other_data() {
    let (decoder, dir) = (tiny_decoder(), tempfile::tempdir().unwrap());
    let mut settings = curriculum();
    settings.stages.truncate(1);
    let first_corpus = jsonl(dir.path(), 7);
    let mut first = trainer(&decoder, &first_corpus, settings.clone());
    first.run(dir.path().join("first"), None, &mut go_on).unwrap();
    let trained = first.compressor().clone();
    let steps = trained.config().steps;

    let other = tempfile::tempdir().unwrap();
    let corpus = jsonl(other.path(), 6);
    let begin = || trainer(&decoder, &corpus, settings.clone()).start_from(trained.clone()).unwrap();
    let mut second = begin();
    assert_eq!(bytes(second.compressor()), bytes(&trained));
    second.step().unwrap();
    assert_ne!(bytes(second.compressor()), bytes(&trained));
    assert_eq!(second.compressor().config().steps, steps + 1);
    second.save(other.path()).unwrap();

    // It goes on from the same start, and from no other.
    let mut third = begin();
    assert!(third.resume(other.path()).unwrap());
    assert_eq!(bytes(third.compressor()), bytes(second.compressor()));
    assert!(matches!(third.start_from(trained.clone()), Err(Error::InvalidSetting { .. })));
    let found = trainer(&decoder, &corpus, settings.clone()).resume(other.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "origin"), "{found:?}");
    let changed = second.compressor().clone();
    let found = trainer(&decoder, &corpus, settings.clone()).start_from(changed).unwrap().resume(other.path());
    assert!(matches!(&found, Err(Error::CheckpointMismatch { field, .. }) if field == "origin"), "{found:?}");

    let mut wider = settings.clone();
    wider.reader = lloco_encoder::Reader::Base;
    let found = trainer(&decoder, &corpus, wider).start_from(trained);
    assert!(matches!(found.err(), Some(Error::InvalidSetting { field: "reader", .. })));
}

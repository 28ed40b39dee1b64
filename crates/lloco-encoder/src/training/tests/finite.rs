//! Steps whose result is no number.

use std::ops::ControlFlow;

use super::{data, *};
use crate::{CompressorTrainer, Curriculum, Error, TrainingEvent, training::durable::checkpoints};

fn go_on(_: &TrainingEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn an_update_that_is_no_number_is_refused_and_leaves_weights_and_checkpoints_as_they_are() {
    let (decoder, dir) = (decoder(), tempfile::tempdir().unwrap());
    let corpus = data::corpus(dir.path(), &[("a text that has some forty letters in it", &[])]);
    let json = r#"{"mode": {"pooled": {"segment_length": 8, "ratios": [4]}}, "save_every": 1,
        "stages": [{"name": "s", "steps": 4, "batch": 2, "context": 8, "continuation": 4, "ratios": [4],
            "losses": {"reconstruction": 1.0}}]}"#;
    let curriculum = Curriculum::from_json(json, "c.json").unwrap();
    let mut trainer = CompressorTrainer::new(&decoder, "base", curriculum, &corpus, &data::Bytes).unwrap();
    trainer.run(dir.path(), Some(2), &mut go_on).unwrap();
    let weights = |trainer: &CompressorTrainer<'_>| {
        let all = trainer.compressor.weights.parameters().into_iter().chain(trainer.optimizer.state());
        all.map(|(name, tensor)| (values(&name, tensor).unwrap(), name)).collect::<Vec<_>>()
    };
    let before = weights(&trainer);
    // No setting that passes the checks does this: losses and gradients are numbers, the step is not.
    trainer.curriculum.stages[0].learning_rates.connector = f64::INFINITY;
    let found = trainer.run(dir.path(), None, &mut go_on);
    let Err(Error::NotFinite { step: 3, samples, what }) = found else { panic!("{found:?}") };
    assert!(samples.len() == 2 && samples.iter().all(|name| name.contains("data.jsonl:1")), "{samples:?}");
    assert!(what.contains("`connector."), "{what}");
    assert_eq!((trainer.step, weights(&trainer)), (2, before));
    assert_eq!(checkpoints(dir.path()).newest().unwrap().unwrap().0, 2);
    // The run goes on where it stood.
    trainer.curriculum.stages[0].learning_rates.connector = 1e-3;
    trainer.run(dir.path(), None, &mut go_on).unwrap();
    assert_eq!(trainer.step, 4);
}

//! Questions that do not fit into the model's window beside what is read before them.

use super::{data, *};
use crate::{
    Error,
    training::{sampler::Sampler, window::Window},
};

/// Bytes that the tests' model has positions for.
const POSITIONS: usize = 128;

#[test]
fn questions_longer_than_the_window_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let text = "forty letters are what this text is made";
    let (long, middling) = ("l".repeat(1200), "m".repeat(100));
    let corpus =
        data::corpus(dir.path(), &[(text, &[("q", &long), ("q", &middling), ("q", "short")]), (text, &[("q", &long)])]);
    let mode = pooled();
    let window = Window { positions: POSITIONS, mode: &mode };
    let sampler = Sampler { corpus: &corpus, wording: &data::Bytes, window, seed: 1 };
    let mut stage = stage(Losses { answer: 1.0, ..Losses::default() }, vec![2]);
    (stage.context, stage.batch, stage.questions, stage.continuation) = (40, 6, 3, 8);
    // Twenty summary vectors leave room for the middling one, the text itself does not.
    for (kl, questions, left_out) in [(0.0, 2, 2), (1.0, 1, 3)] {
        stage.losses.kl = kl;
        assert_eq!(sampler.left_out(&stage).unwrap(), left_out);
        let (samples, _) = sampler.batch(&stage, 0).unwrap();
        let asked: Vec<&Sample> = samples.iter().filter(|sample| !sample.questions.is_empty()).collect();
        assert_eq!(asked.len(), 6, "a text without a question teaches no answer");
        for sample in asked {
            assert!(sample.name.ends_with(":1") && sample.questions.len() == questions, "{sample:?}");
            let read = if kl > 0.0 { sample.context.len() } else { 20 };
            assert!(sample.questions.iter().all(|(q, a)| read + q.len() + a.len() <= POSITIONS));
        }
    }
    // With distractors, summary vectors alone leave room for the short one.
    (stage.losses.kl, stage.distractors) = (0.0, 2);
    assert!(sampler.batch(&stage, 0).unwrap().0.iter().all(|sample| sample.questions.len() == 1));
    // Texts whose questions are left out are learned from where a stage learns from texts.
    stage.losses.reconstruction = 1.0;
    assert_eq!(sampler.left_out(&Stage { losses: Losses::default(), ..stage.clone() }).unwrap(), 0);
    assert!(sampler.batch(&stage, 0).unwrap().0.iter().any(|sample| sample.questions.is_empty()));
    (stage.losses.reconstruction, stage.documents) = (0.0, None);
    let corpus = data::corpus(dir.path(), &[(text, &[("q", &long)])]);
    let found = Sampler { corpus: &corpus, ..sampler }.batch(&stage, 0);
    assert!(matches!(&found, Err(Error::NoSample { stage, .. }) if stage == "test"), "{found:?}");
}

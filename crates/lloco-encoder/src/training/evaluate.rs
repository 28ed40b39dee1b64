//! How well summaries are read, beside the same reading of another document's.

use lloco_decoder::{Decoder, LinearAdapter};
use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;

use super::{
    Stage,
    batch::{Encoding, groups, joined},
    losses::{Kind, Losses},
    reading::{Reading, read},
    sample::{Plan, Planned, Sample},
    score::{hits, nll},
};
use crate::{Compressor, Result};

/// Scores of one kind of reading, as means over its tokens.
///
/// What counts is the gap: a loss that is as low behind another document's summaries was not read off the summaries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// `-ln p` of a token.
    pub nll: f64,
    /// `-ln p` behind the summaries of another document.
    pub shuffled_nll: f64,
    /// Share of the tokens that the model finds most likely where they stand, the text before them given.
    pub accuracy: f64,
    /// The tokens.
    pub tokens: usize,
}

/// Scores of held-out samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// The compressed text said again.
    pub reconstruction: Score,
    /// The text behind it.
    pub continuation: Score,
    /// Answers to questions.
    pub answer: Score,
}

/// Scores samples as a stage would train on them, without training.
pub(crate) fn evaluate(
    decoder: &Decoder,
    compressor: &Compressor,
    stage: &Stage,
    samples: &[Sample],
    micro_batch: usize,
) -> Result<Evaluation> {
    let mut rng = StdRng::seed_from_u64(7);
    let losses = Losses { reconstruction: 1.0, continuation: 1.0, answer: 1.0, ..Losses::default() };
    let plan = Plan { losses: &losses, target_tokens: stage.target_tokens, reconstructions: 1, distractors: 0 };
    let weights = &compressor.weights;
    let seam = weights.reading().map(|adapter| adapter as &dyn LinearAdapter);
    let mut scores = [Score::default(); 3];
    for group in groups(samples, micro_batch.max(2)) {
        let ratio = stage.ratios.last().copied();
        let encoding =
            Encoding { decoder, compressor, tracked: weights, stage, ratio, batch: micro_batch, dropout: None };
        let engines = encoding.engines(group, &mut rng)?;
        let found = engines.iter().map(|(members, engine)| Ok((members, engine.summaries(true)?.0)));
        let (summaries, rows) = joined(group.len(), found.collect::<Result<Vec<_>>>()?);
        let Some(summaries) = summaries else { continue };
        for planned in plan.readings(group, &mut rng) {
            let Planned { kind, reading, .. } = &planned;
            let look = |reading: &Reading| read(decoder, weights, seam, &summaries, &rows, &[reading]);
            let sum = |losses: Vec<f32>| losses.into_iter().map(f64::from).sum::<f64>();
            let hidden = look(reading)?;
            let score = &mut scores[*kind as usize];
            score.nll += sum(nll(decoder, &hidden, &reading.targets)?.losses);
            score.accuracy += hits(decoder, &hidden, &reading.targets)? as f64;
            score.tokens += reading.targets.len();
            let misled = look(&planned.misled(group))?;
            score.shuffled_nll += sum(nll(decoder, &misled, &reading.targets)?.losses);
        }
    }
    let mean = |kind: Kind| {
        let Score { nll, shuffled_nll, accuracy, tokens } = scores[kind as usize];
        let n = tokens.max(1) as f64;
        Score { nll: nll / n, shuffled_nll: shuffled_nll / n, accuracy: accuracy / n, tokens }
    };
    Ok(Evaluation {
        reconstruction: mean(Kind::Reconstruction),
        continuation: mean(Kind::Continuation),
        answer: mean(Kind::Answer),
    })
}

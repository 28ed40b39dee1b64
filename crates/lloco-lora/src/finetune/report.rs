//! What a run tells while it goes on, and in the end.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::Evaluation;

/// What one step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The step, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub of: usize,
    /// The epoch, from 1.
    pub epoch: usize,
    /// Mean of `-ln p` over the batch's answer tokens, before the step.
    pub loss: f64,
    /// Mean divergence from the text's reading over the tokens of taught answers, before the step; `None` where the batch
    /// has no teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// The batch's answer tokens.
    pub tokens: usize,
    /// Positions of the batch's examples, their distractors' included; those that several share are counted for each.
    pub positions: usize,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Time taken.
    pub seconds: f64,
    /// Floating-point operations of the model, as [`Decoder::operations`](lloco_decoder::Decoder::operations) counts them.
    pub operations: f64,
}

/// What happens during a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step is done.
    Step(StepReport),
    /// The held-out examples were scored after a step.
    Evaluated {
        /// The step.
        step: usize,
        /// The scores.
        evaluation: Evaluation,
        /// Whether the loss is a number and lower than in all evaluations before.
        best: bool,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Its directory.
        path: PathBuf,
    },
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The held-out loss has not improved for `patience` evaluations.
    StoppedEarly,
    /// The observer asked to stop.
    Interrupted,
}

/// The curves to which a line of `metrics.jsonl` adds, and its values.
pub(super) fn curves(line: &Value) -> Vec<(String, f64)> {
    let held_out = line.get("evaluation").and_then(|evaluation| evaluation.get("nll"));
    let values = [("loss", line.get("loss")), ("divergence", line.get("divergence")), ("held-out loss", held_out)];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.as_f64()?))).collect()
}

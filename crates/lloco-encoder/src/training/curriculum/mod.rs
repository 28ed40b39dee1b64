//! A curriculum: which compressor is trained, and through which stages. A plain JSON file.

mod check;

use std::{fs, path::Path};

use lloco_lora::LoraConfig;
use serde::{Deserialize, Serialize};

use super::losses::Losses;
use crate::{Error, Mode, Reader, Result, Tuning};

/// A training run from its first stage to its last.
///
/// Unknown keys are errors; what is left out has its default.
///
/// ```
/// use lloco_encoder::Curriculum;
/// let json = r#"{
///     "mode": {"pooled": {"segment_length": 64, "ratios": [4]}},
///     "stages": [{"name": "overfit", "steps": 200, "context": 64, "documents": 64, "ratios": [4],
///                 "losses": {"reconstruction": 1.0}}]
/// }"#;
/// let curriculum = Curriculum::from_json(json, "curriculum.json")?;
/// assert_eq!(curriculum.steps(), 200);
/// # Ok::<_, lloco_encoder::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Curriculum {
    /// The kind of encoder, and its lengths.
    pub mode: Mode,
    /// What is trained of the layers that read.
    #[serde(default = "encoder_lora")]
    pub encoder: Tuning,
    /// Who reads summaries.
    #[serde(default = "own_reader")]
    pub reader: Reader,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Samples that are encoded and read together. Memory grows with it.
    #[serde(default = "default_micro_batch")]
    pub micro_batch: usize,
    /// Steps between checkpoints.
    #[serde(default = "default_save_every")]
    pub save_every: usize,
    /// Steps between evaluations on the held-out documents; 0 for one at the end of each stage.
    #[serde(default)]
    pub evaluate_every: usize,
    /// Seeds the weights, the order of the documents, and all else that is drawn.
    #[serde(default)]
    pub seed: u64,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// Settings of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OptimizerConfig {
    /// Decay of the mean of gradients.
    pub beta_1: f32,
    /// Decay of the mean of squared gradients.
    pub beta_2: f32,
    /// Epsilon.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients of a larger norm, over all parameters, are scaled down to it.
    pub max_grad_norm: f64,
}

/// One stage of a curriculum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Stage {
    /// What reports call it.
    pub name: String,
    /// Optimiser steps.
    pub steps: usize,
    /// Samples a step.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Tokens of a text that is compressed.
    pub context: usize,
    /// Tokens behind it that are predicted, where a loss wants them.
    #[serde(default = "default_continuation")]
    pub continuation: usize,
    /// Most tokens of a reconstruction; of a longer text, a part is said again behind its first tokens.
    #[serde(default = "default_target_tokens")]
    pub target_tokens: usize,
    /// Parts of a longer text that are said again, each drawn anew; they read its summary vectors together.
    #[serde(default = "one")]
    pub reconstructions: usize,
    /// Tokens a summary vector, one drawn for each step (`pooled` only).
    #[serde(default)]
    pub ratios: Vec<usize>,
    /// Parts of a text between which the softprompt is detached (`autocompressor` only).
    #[serde(default = "two")]
    pub substeps: usize,
    /// Segments of random length in each part (`autocompressor` only).
    #[serde(default = "two")]
    pub segments_per_substep: usize,
    /// Most tokens of such a segment; left out, as many as the model's window allows. A text of as many tokens as its
    /// segments may have at most is cut evenly.
    #[serde(default)]
    pub longest_segment: Option<usize>,
    /// Most questions about one text, where a loss wants answers; they read its summary vectors together.
    #[serde(default = "one")]
    pub questions: usize,
    /// Other samples' summaries beside the right ones, on answers and continuations.
    #[serde(default)]
    pub distractors: usize,
    /// Learn only the first so many pieces of the data, always at the same place: overfitting, as a test of the whole.
    #[serde(default)]
    pub documents: Option<usize>,
    /// Weights of the losses.
    pub losses: Losses,
    /// Learning rates.
    #[serde(default)]
    pub learning_rates: LearningRates,
    /// Steps over which the rates rise from 0.
    #[serde(default = "default_warmup")]
    pub warmup_steps: usize,
    /// Share of the rates that is left at the end of the stage, on half a cosine.
    #[serde(default = "default_final_rate")]
    pub final_rate: f64,
}

/// Learning rates of the parts of a compressor; 0 leaves a part as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LearningRates {
    /// Of the layers that read, adapter or weights, and the summary tokens.
    pub encoder: f64,
    /// Of the connector.
    pub connector: f64,
    /// Of the reader's own adapter, and the rows that ask for a task.
    pub reader: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 }
    }
}

impl Default for LearningRates {
    fn default() -> Self {
        Self { encoder: 2e-4, connector: 5e-4, reader: 1e-4 }
    }
}

impl LearningRates {
    /// The rate of a parameter by its name.
    pub(crate) fn of(&self, name: &str) -> f64 {
        match name.split('.').next() {
            Some("encoder") => self.encoder,
            Some("connector") => self.connector,
            _ => self.reader,
        }
    }

    /// Whether anything on the way to the summaries learns.
    pub(crate) fn encodes(&self) -> bool {
        self.encoder > 0.0 || self.connector > 0.0
    }
}

impl Curriculum {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no curriculum, unknown keys included; [`Error::Curriculum`] for a value out of
    /// range.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::from_json(&json, path)
    }

    /// Reads JSON; `origin` is what errors call the file.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_json(json: &str, origin: impl AsRef<Path>) -> Result<Self> {
        let malformed = |e: serde_json::Error| Error::Malformed { path: origin.as_ref().into(), detail: e.to_string() };
        let curriculum: Self = serde_json::from_str(json).map_err(malformed)?;
        curriculum.check(origin.as_ref())?;
        Ok(curriculum)
    }

    /// Steps of all stages.
    pub fn steps(&self) -> usize {
        self.stages.iter().map(|stage| stage.steps).sum()
    }

    /// Index of the stage of a step, from 0, and the step's number in it; `None` behind the last.
    pub fn stage_of(&self, step: usize) -> Option<(usize, usize)> {
        let mut first = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            if step < first + stage.steps {
                return Some((index, step - first));
            }
            first += stage.steps;
        }
        None
    }
}

impl Stage {
    /// The share of its learning rates that a step of this stage has, from 0.
    pub(crate) fn rate_at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        let progress = (step - self.warmup_steps) as f64 / self.steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
        self.final_rate + (1.0 - self.final_rate) * cosine
    }
}

fn default_lora() -> LoraConfig {
    LoraConfig::default().with_rank(16, 32.0).with_dropout(0.0).with_all_linear()
}

fn encoder_lora() -> Tuning {
    Tuning::Lora(default_lora())
}

fn own_reader() -> Reader {
    Reader::Own(default_lora())
}

fn default_micro_batch() -> usize {
    8
}

fn default_save_every() -> usize {
    100
}

fn default_batch() -> usize {
    16
}

fn default_continuation() -> usize {
    64
}

fn default_target_tokens() -> usize {
    256
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn default_warmup() -> usize {
    20
}

fn default_final_rate() -> f64 {
    1.0
}

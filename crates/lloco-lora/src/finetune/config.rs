//! Settings of a finetuning run.

use serde::{Deserialize, Serialize};

use crate::{Error, LoraConfig, Result};

/// How to finetune. The default is the published recipe, with a learning rate for small models.
///
/// Saved beside checkpoints as JSON; unknown fields are errors.
///
/// ```
/// use lloco_lora::TrainConfig;
/// let config: TrainConfig = serde_json::from_str(r#"{"epochs": 1, "lora": {"r": 4}}"#)?;
/// assert_eq!(config.batch_size * config.accumulation, 8);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// The adapter's shape, and the dropout.
    pub lora: LoraConfig,
    /// The learning rate behind the warm-up. The published 7B recipe has 2e-5; models of 100 to 400 million
    /// parameters need 1e-4 to 3e-4, hence the default of 2e-4.
    pub learning_rate: f64,
    /// How the learning rate falls behind the warm-up.
    pub schedule: Schedule,
    /// Share of all steps over which the learning rate rises from 0.
    pub warmup_ratio: f64,
    /// How often each example is seen.
    pub epochs: usize,
    /// Examples in one forward pass. Memory grows with it; the gradients of a step do not depend on it. Without
    /// distractors, examples about the same documents come in the same pass as far as it goes, which then reads the
    /// documents' summary vectors once.
    pub batch_size: usize,
    /// Forward passes in one step; a step sees `batch_size * accumulation` examples.
    pub accumulation: usize,
    /// Summaries of other examples' documents, at most so many, that stand beside the right ones in random order.
    #[serde(skip_serializing_if = "none")]
    pub distractors: usize,
    /// Weight of the divergence from the text's reading, `KL(teacher || student)` a token, beside the cross entropy; for
    /// examples that have a [teacher](crate::Example::teacher).
    #[serde(skip_serializing_if = "usual")]
    pub distillation: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients of a larger norm, over all parameters, are scaled down to it. `None` never scales.
    pub max_grad_norm: Option<f64>,
    /// Decay of AdamW's mean of gradients.
    pub beta_1: f32,
    /// Decay of AdamW's mean of squared gradients.
    pub beta_2: f32,
    /// AdamW's epsilon.
    pub epsilon: f32,
    /// Seeds the adapter, the order of examples and the dropout.
    pub seed: u64,
    /// Steps between checkpoints; 0 for one at the end only.
    pub save_every: usize,
    /// Steps between evaluations on the held-out examples; 0 for one at the end of each epoch.
    pub evaluate_every: usize,
    /// Evaluations without improvement after which the run stops; `None` never stops early.
    pub patience: Option<usize>,
}

/// How the learning rate falls behind the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// Half a cosine, to 0 at the end.
    Cosine,
    /// A straight line, to 0 at the end.
    Linear,
    /// Not at all.
    Constant,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            lora: LoraConfig::default(),
            learning_rate: 2e-4,
            schedule: Schedule::Cosine,
            warmup_ratio: 0.04,
            epochs: 3,
            batch_size: 4,
            accumulation: 2,
            distractors: 0,
            distillation: DISTILLATION,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            seed: 0,
            save_every: 50,
            evaluate_every: 0,
            patience: None,
        }
    }
}

impl TrainConfig {
    /// Sets the adapter's shape.
    #[must_use]
    pub fn with_lora(mut self, lora: LoraConfig) -> Self {
        self.lora = lora;
        self
    }

    /// Sets the learning rate.
    #[must_use]
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }

    /// Sets schedule and warm-up.
    #[must_use]
    pub fn with_schedule(mut self, schedule: Schedule, warmup_ratio: f64) -> Self {
        (self.schedule, self.warmup_ratio) = (schedule, warmup_ratio);
        self
    }

    /// Sets the number of epochs.
    #[must_use]
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the examples in a forward pass and the passes in a step.
    #[must_use]
    pub fn with_batches(mut self, batch_size: usize, accumulation: usize) -> Self {
        (self.batch_size, self.accumulation) = (batch_size, accumulation);
        self
    }

    /// Puts up to so many other documents' summaries beside the right ones.
    #[must_use]
    pub fn with_distractors(mut self, distractors: usize) -> Self {
        self.distractors = distractors;
        self
    }

    /// Sets the weight of the divergence from the text's reading.
    #[must_use]
    pub fn with_distillation(mut self, weight: f64) -> Self {
        self.distillation = weight;
        self
    }

    /// Sets the largest norm of a gradient.
    #[must_use]
    pub fn with_max_grad_norm(mut self, norm: Option<f64>) -> Self {
        self.max_grad_norm = norm;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Examples in one step.
    pub fn effective_batch(&self) -> usize {
        self.batch_size.saturating_mul(self.accumulation)
    }

    /// Checks that every setting is possible.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first that is not.
    pub fn check(&self) -> Result<()> {
        let range = |field: &str, value: f64, good: bool, expected: &str| {
            if good { Ok(()) } else { Err(Error::setting(field, value, expected)) }
        };
        let share = |value: f64| (0.0..1.0).contains(&value);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let rate = self.learning_rate;
        range("learning_rate", rate, positive(rate) && rate <= 1.0, "above 0 and at most 1")?;
        range("warmup_ratio", self.warmup_ratio, (0.0..=1.0).contains(&self.warmup_ratio), "from 0 to 1")?;
        range("weight_decay", self.weight_decay, share(self.weight_decay), "from 0 up to, not including, 1")?;
        range("beta_1", self.beta_1.into(), share(self.beta_1.into()), "from 0 up to, not including, 1")?;
        range("beta_2", self.beta_2.into(), share(self.beta_2.into()), "from 0 up to, not including, 1")?;
        range("epsilon", self.epsilon.into(), positive(self.epsilon.into()), "above 0")?;
        let norm = self.max_grad_norm.unwrap_or(1.0);
        range("max_grad_norm", norm, positive(norm), "above 0, or null")?;
        let counts = [("epochs", self.epochs), ("batch_size", self.batch_size), ("accumulation", self.accumulation)];
        for (field, count) in counts {
            range(field, count as f64, (1..=1 << 20).contains(&count), "at least 1 and at most 1048576")?;
        }
        range("distractors", self.distractors as f64, self.distractors <= 1024, "at most 1024")?;
        let weight = self.distillation;
        range("distillation", weight, (0.0..=1000.0).contains(&weight), "from 0 to 1000")?;
        range("patience", 0.0, self.patience != Some(0), "at least 1, or null")?;
        self.lora.check()
    }
}

/// As the published distillations weigh it.
const DISTILLATION: f64 = 2.0;

/// Whether the weight is left out of files, for the same reason.
fn usual(weight: &f64) -> bool {
    *weight == DISTILLATION
}

/// Whether a setting is left out of files: files of a time before it stay what they were.
fn none(count: &usize) -> bool {
    *count == 0
}

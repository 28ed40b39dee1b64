//! What to learn from, and how.

use std::{collections::HashSet, path::PathBuf};

use lloco_lora::{Adapter, LoraConfig, TrainConfig};

use crate::{
    Lloco, Result,
    dataset::{self, QaDocument},
};

/// What to learn from, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FinetuneConfig {
    /// Questions and answers, in the format of [`dataset`].
    pub questions: PathBuf,
    /// Questions about the group's documents that are not learned but tell, between the steps, how far learning has come:
    /// the adapter that did best on them becomes the group's, and [`TrainConfig::patience`] may end the run.
    pub held_out: Option<PathBuf>,
    /// Holds out the questions of every so many documents as well, chosen by [`dataset::held_out`]; at least 2.
    pub hold_out_every: Option<usize>,
    /// Learn also what the model itself predicts when it reads the text: so many of its likeliest tokens for each of an
    /// answer's. The weight is [`TrainConfig::distillation`].
    pub distil: Option<usize>,
    /// The adapter's shape, and the dropout. `None` leaves the shape open: it is [that](Lloco::adapter_shape) of the
    /// reader that came with the compressor, unless [`TrainConfig::lora`] is another than the default.
    ///
    /// The adapter begins as the reader in every shape that has room for it, and any other is an error.
    pub lora: Option<LoraConfig>,
    /// Settings of the run.
    pub training: TrainConfig,
}

impl FinetuneConfig {
    /// The default settings on the questions of a JSONL file.
    pub fn new(questions: impl Into<PathBuf>) -> Self {
        let (questions, training) = (questions.into(), TrainConfig::default());
        Self { questions, held_out: None, hold_out_every: None, distil: None, lora: None, training }
    }

    /// Judges the run by the questions of another JSONL file.
    #[must_use]
    pub fn with_held_out(mut self, questions: impl Into<PathBuf>) -> Self {
        self.held_out = Some(questions.into());
        self
    }

    /// Judges the run by the questions of every `every`th document, which are then not learned.
    #[must_use]
    pub fn with_hold_out_every(mut self, every: usize) -> Self {
        self.hold_out_every = Some(every);
        self
    }

    /// Learns also the `top` likeliest tokens that the model predicts when it reads the question's passage, or the text of
    /// its documents as far as the window reaches. Takes one reading of each before training begins.
    #[must_use]
    pub fn with_distillation(mut self, top: usize) -> Self {
        self.distil = Some(top);
        self
    }

    /// Sets the adapter's shape, and the dropout.
    #[must_use]
    pub fn with_lora(mut self, lora: LoraConfig) -> Self {
        self.lora = Some(lora);
        self
    }

    /// Sets the settings of the run.
    #[must_use]
    pub fn with_training(mut self, training: TrainConfig) -> Self {
        self.training = training;
        self
    }

    /// The ids of the documents whose questions are held out.
    pub(super) fn kept<'d>(&self, documents: &'d [QaDocument]) -> Result<HashSet<&'d str>> {
        match self.hold_out_every {
            None => Ok(HashSet::new()),
            Some(every @ (0 | 1)) => {
                let (field, value, expected) = ("hold_out_every".into(), every.to_string(), "at least 2".into());
                Err(lloco_lora::Error::Setting { field, value, expected }.into())
            }
            Some(every) => Ok(dataset::held_out(documents, every)),
        }
    }
}

impl Lloco {
    /// The shape of a group's adapter where [none is asked for](FinetuneConfig::lora): that of the reader that came with
    /// the compressor, and without one the default; with the default dropout.
    pub fn adapter_shape(&self) -> LoraConfig {
        let default = LoraConfig::default();
        match self.encoder.reader() {
            Some(reader) => reader.without_saved().config().clone().with_dropout(default.lora_dropout),
            None => default,
        }
    }

    /// The settings of a run as they count: with the shape that the adapter takes, and the default in the place of what
    /// has no effect.
    pub(super) fn settings(&self, config: &FinetuneConfig, judged: bool) -> Result<TrainConfig> {
        config.training.check()?;
        let mut training = config.training.clone();
        let dropout = training.lora.lora_dropout;
        let asked = training.lora != LoraConfig::default().with_dropout(dropout);
        training.lora = match &config.lora {
            Some(lora) => lora.clone(),
            None if asked => training.lora,
            None => self.adapter_shape().with_dropout(dropout),
        };
        if config.distil.is_none() {
            training.distillation = TrainConfig::default().distillation;
        }
        if !judged {
            (training.evaluate_every, training.patience) = (0, None);
        }
        if let Some(reader) = self.encoder.reader() {
            let (model, device) = (self.encoder.decoder().config(), self.encoder.decoder().device());
            // A shape without room for the reader is refused before anything is read.
            Adapter::init(&training.lora, model, training.seed, device)?.beginning_as(reader)?;
        }
        Ok(training)
    }
}

//! A run: its settings, its examples, and how far it is.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor};
use lloco_decoder::Decoder;

use super::{AdamW, Example, SummaryVectors, TrainConfig, distractors::Distractors, progress::Progress};
use crate::{Adapter, Error, Result};

/// A finetuning run.
///
/// ```no_run
/// # use std::ops::ControlFlow;
/// # use lloco_decoder::Decoder;
/// # use lloco_lora::{Example, StoredType, TrainConfig, Trainer};
/// # fn finetune(decoder: &Decoder, examples: Vec<Example>) -> lloco_lora::Result<()> {
/// let mut trainer = Trainer::new(decoder, TrainConfig::default(), examples)?;
/// trainer.resume("run")?;
/// trainer.run(Some("run".as_ref()), &mut |_event| ControlFlow::Continue(()))?;
/// trainer.adapter().save("adapter", StoredType::F16)?;
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) config: TrainConfig,
    pub(super) examples: Vec<Example>,
    /// Of each example, the first one about the same documents.
    pub(super) documents: Vec<usize>,
    pub(super) held_out: Vec<Example>,
    pub(super) distractors: Distractors,
    pub(super) adapter: Adapter,
    pub(super) optimizer: AdamW,
    /// Steps done.
    pub(super) step: usize,
    pub(super) progress: Progress,
}

impl<'a> Trainer<'a> {
    /// A run from a new adapter. Modules of `modules_to_save` start as the model's own.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting out of range, or distractors where all examples are about one document;
    /// [`Error::NoExamples`] for none, [`Error::Example`] for one that does not fit the model, or whose reading, with as
    /// many distractors as it may get, is longer than the model's window.
    pub fn new(decoder: &'a Decoder, config: TrainConfig, examples: Vec<Example>) -> Result<Self> {
        config.check()?;
        let mut adapter = Adapter::init(&config.lora, decoder.config(), config.seed, decoder.device())?;
        for module in &config.lora.modules_to_save {
            adapter = adapter.with_saved(module, own_weight(decoder, module)?)?;
        }
        check(&examples, decoder)?;
        let optimizer = AdamW::new(&config);
        let distractors = Distractors::new(&examples, config.distractors, config.seed)?;
        distractors.check(&examples, decoder.config())?;
        let documents = documents(&examples);
        Ok(Self {
            decoder,
            config,
            examples,
            documents,
            held_out: Vec::new(),
            distractors,
            adapter,
            optimizer,
            step: 0,
            progress: Progress::default(),
        })
    }

    /// Starts from this adapter instead of a new one. Its shape takes the place of the configuration's `lora`, apart
    /// from the dropout.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Adapter) -> Self {
        self.adapter = adapter.to_device(self.decoder.device());
        self.adapter.config.lora_dropout = self.config.lora.lora_dropout;
        self.config.lora = self.adapter.config().clone();
        self
    }

    /// Evaluates on these examples during the run and keeps the best adapter. Comes before [`resume`](Self::resume), which
    /// wants those that the run was begun with.
    ///
    /// # Errors
    /// [`Error::Example`] for one that does not fit the model.
    pub fn with_held_out(mut self, examples: Vec<Example>) -> Result<Self> {
        if !examples.is_empty() {
            check(&examples, self.decoder)?;
        }
        (self.held_out, self.progress) = (examples, Progress::default());
        Ok(self)
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The adapter as it is now.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The adapter that did best on the held-out examples, its loss there and its step; `None` before the first
    /// evaluation that gave a number.
    pub fn best(&self) -> Option<(&Adapter, f64, usize)> {
        self.progress.best.as_ref().map(|best| (&best.adapter, best.nll, best.step))
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.order().steps()
    }
}

fn check(examples: &[Example], decoder: &Decoder) -> Result<()> {
    if examples.is_empty() {
        return Err(Error::NoExamples);
    }
    examples.iter().enumerate().try_for_each(|(index, example)| example.check(index, decoder.config()))?;
    let mut tops = examples.iter().filter_map(|example| example.teacher.as_ref()).map(|teacher| teacher.top());
    let first = tops.next();
    match tops.find(|top| Some(*top) != first) {
        Some(other) => Err(Error::setting("teacher", other, "equally many tokens a row in all teachers")),
        None => Ok(()),
    }
}

/// Of each example, the first one about the same documents.
fn documents(examples: &[Example]) -> Vec<usize> {
    let mut first = HashMap::new();
    let key = |example: &Example| example.prefix.iter().map(SummaryVectors::address).collect::<Vec<_>>();
    examples.iter().enumerate().map(|(index, example)| *first.entry(key(example)).or_insert(index)).collect()
}

/// The model's own weight of a module, f32 `[vocab, hidden]`.
fn own_weight(decoder: &Decoder, module: &str) -> Result<Tensor<2>> {
    let config = decoder.config();
    match module {
        "embed_tokens" => {
            let ids: Vec<u32> = (0..config.vocab_size).map(|id| id as u32).collect();
            Ok(decoder.embed(&ids)?.cast(burn::tensor::FloatDType::F32).squeeze_dim(0))
        }
        "lm_head" => {
            let device: &Device = decoder.device();
            // Scores of the unit vectors are the head's columns.
            let units = Tensor::<2>::eye(config.hidden_size, device).unsqueeze();
            let columns: Tensor<2> = decoder.logits(units).squeeze_dim(0);
            Ok(columns.transpose())
        }
        other => Err(Error::setting(
            "modules_to_save",
            other,
            "the model has no such weight; start from an adapter that holds it",
        )),
    }
}

//! The loop: one step after the other, with evaluation and early stopping between.

use std::{borrow::Cow, collections::HashMap, fs, ops::ControlFlow, path::Path, time::Instant};

use burn::tensor::{Device, Tensor};
use lloco_decoder::{Decoder, mix, release_memory};
use serde_json::json;

use super::{
    AdamW, BatchGradients, Evaluation, Event, Example, Outcome, StepReport, SummaryVectors, TrainConfig,
    batch_gradients, distil::taught_gradients, distractors::Distractors, evaluate, order::Order, progress::Progress,
    report::curves,
};
use crate::{Adapter, Error, Result, durable::Checkpoints, metrics::Metrics};

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
    documents: Vec<usize>,
    pub(super) held_out: Vec<Example>,
    distractors: Distractors,
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

    /// Loss and gradients of the next step's batch; changes nothing. Where examples have a teacher, the gradients are
    /// those of the weighted divergence as well.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the loss is no number.
    pub fn gradients(&self) -> Result<BatchGradients> {
        Ok(self.taught_gradients()?.0)
    }

    fn taught_gradients(&self) -> Result<(BatchGradients, Option<f64>)> {
        let dropout_seed = mix(self.config.seed ^ mix(self.step as u64));
        let batch = self.batch();
        let batch: Vec<&Example> = batch.iter().map(AsRef::as_ref).collect();
        let (adapter, size, seed) = (&self.adapter, self.config.batch_size, Some(dropout_seed));
        let weight = self.config.distillation;
        let found = match weight > 0.0 && batch.iter().any(|example| example.teacher.is_some()) {
            true => taught_gradients(self.decoder, adapter, &batch, size, seed, weight).map(|(b, kl)| (b, Some(kl))),
            false => batch_gradients(self.decoder, adapter, &batch, size, seed).map(|batch| (batch, None)),
        };
        found.map_err(|error| match error {
            Error::NotFinite { what, examples, .. } => Error::NotFinite { what, step: self.step + 1, examples },
            other => other,
        })
    }

    /// Does the next step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when loss, gradients or the adapter behind the step are no numbers; the trainer is then as
    /// before.
    pub fn step(&mut self) -> Result<StepReport> {
        let start = Instant::now();
        let (BatchGradients { loss, tokens, mut gradients }, divergence) = self.taught_gradients()?;
        let grad_norm = gradients.norm()?;
        if !grad_norm.is_finite() {
            return Err(self.not_finite(format!("the norm of the gradients is {grad_norm}")));
        }
        if let Some(max) = self.config.max_grad_norm.filter(|max| grad_norm > *max) {
            gradients = gradients.scaled(max / (grad_norm + 1e-6));
        }
        let learning_rate = self.config.learning_rate_at(self.step, self.steps());
        let mut optimizer = self.optimizer.clone();
        let adapter = optimizer.step(learning_rate, &self.adapter, &gradients);
        if let Some(name) = adapter.spoiled()? {
            return Err(self.not_finite(format!("`{name}` would no longer be finite")));
        }
        let positions = self.batch().iter().map(|example| example.positions()).sum();
        let epoch = self.order().epoch(self.step) + 1;
        (self.adapter, self.optimizer) = (adapter, optimizer);
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            of: self.steps(),
            epoch,
            loss,
            divergence,
            tokens,
            positions,
            grad_norm,
            learning_rate,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// What is no number in the next step, with the names of its batch.
    fn not_finite(&self, what: String) -> Error {
        let examples = self.batch().iter().map(|example| example.name.clone()).collect();
        Error::NotFinite { what, step: self.step + 1, examples }
    }

    /// Does the steps that are left, with evaluations. If `dir` names a directory, the run is kept there: a checkpoint
    /// every `save_every` steps and at the end, `metrics.jsonl` with a line a step and a line an evaluation, and
    /// `curves.svg`, drawn with each checkpoint. `observer` sees each [`Event`] and may break off; the run is then saved.
    ///
    /// # Errors
    /// As [`step`](Self::step) and [`save`](Self::save).
    pub fn run(&mut self, dir: Option<&Path>, observer: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<Outcome> {
        let outcome = self.go_on(dir, observer);
        release_memory();
        outcome
    }

    fn go_on(&mut self, dir: Option<&Path>, observer: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<Outcome> {
        let metrics = dir.map(Metrics::new);
        if let (Some(dir), Some(metrics)) = (dir, &metrics) {
            Checkpoints::new(dir).check_not_behind(self.step)?;
            fs::create_dir_all(dir).map_err(Error::write(dir))?;
            metrics.rewind(self.step)?;
        }
        let mut outcome = self.finished();
        let mut saved = self.step;
        while outcome.is_none() {
            let report = self.step()?;
            metrics.iter().try_for_each(|metrics| metrics.append(&report))?;
            let mut flow = observer(&Event::Step(report));
            if self.evaluation_due() {
                let evaluation = self.evaluate(&self.held_out)?;
                let best = self.progress.judge(&self.adapter, evaluation.nll, self.step);
                let Evaluation { nll, tokens, .. } = &evaluation;
                let line = json!({"step": self.step, "evaluation": {"nll": nll, "tokens": tokens}});
                metrics.iter().try_for_each(|metrics| metrics.append(&line))?;
                if observer(&Event::Evaluated { step: self.step, evaluation, best }).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            outcome = self.finished().or(flow.is_break().then_some(Outcome::Interrupted));
            let due = self.config.save_every > 0 && self.step - saved >= self.config.save_every;
            if let Some(dir) = dir.filter(|_| due || outcome.is_some()) {
                let path = self.save(dir)?;
                saved = self.step;
                metrics.iter().try_for_each(|metrics| metrics.draw(curves))?;
                if observer(&Event::Saved { path }).is_break() {
                    outcome = outcome.or(Some(Outcome::Interrupted));
                }
            }
        }
        Ok(outcome.unwrap_or(Outcome::Finished))
    }

    /// Scores examples with the adapter as it is now.
    ///
    /// # Errors
    /// As [`evaluate`](super::evaluate).
    pub fn evaluate(&self, examples: &[Example]) -> Result<Evaluation> {
        evaluate(self.decoder, &self.adapter, examples, self.config.batch_size)
    }

    fn finished(&self) -> Option<Outcome> {
        let stale = self.config.patience.is_some_and(|patience| self.progress.stale >= patience);
        match self.step >= self.steps() {
            true => Some(Outcome::Finished),
            false => stale.then_some(Outcome::StoppedEarly),
        }
    }

    fn evaluation_due(&self) -> bool {
        let every = match self.config.evaluate_every {
            0 => self.order().steps_per_epoch(),
            every => every,
        };
        !self.held_out.is_empty() && (self.step.is_multiple_of(every) || self.step == self.steps())
    }

    /// The examples of the next step, among their distractors.
    fn batch(&self) -> Vec<Cow<'_, Example>> {
        let first = self.step as u64 * self.config.effective_batch() as u64;
        let places = (first..).zip(self.order().indices(self.step));
        places.filter_map(|(place, index)| Some(self.distractors.beside(self.examples.get(index)?, place))).collect()
    }

    fn order(&self) -> Order<'_> {
        let Self { config, documents, .. } = self;
        // Among distractors, no two passes over a document are the same.
        let together = if config.distractors == 0 { config.batch_size } else { 1 };
        Order { documents, together, batch: config.effective_batch(), epochs: config.epochs, seed: config.seed }
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

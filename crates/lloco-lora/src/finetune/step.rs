//! One step: from a batch to a new adapter, which is taken only if it is made of numbers.

use std::{borrow::Cow, time::Instant};

use lloco_decoder::mix;

use super::{BatchGradients, Example, StepReport, Trainer, batch_gradients, distil::taught_gradients, order::Order};
use crate::{Error, Result};

impl Trainer<'_> {
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
        let (start, operations) = (Instant::now(), self.decoder.operations());
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
            operations: self.decoder.operations() - operations,
        })
    }

    /// What is no number in the next step, with the names of its batch.
    fn not_finite(&self, what: String) -> Error {
        let examples = self.batch().iter().map(|example| example.name.clone()).collect();
        Error::NotFinite { what, step: self.step + 1, examples }
    }

    /// The examples of the next step, among their distractors.
    fn batch(&self) -> Vec<Cow<'_, Example>> {
        let first = self.step as u64 * self.config.effective_batch() as u64;
        let places = (first..).zip(self.order().indices(self.step));
        places.filter_map(|(place, index)| Some(self.distractors.beside(self.examples.get(index)?, place))).collect()
    }

    pub(super) fn order(&self) -> Order<'_> {
        let Self { config, documents, .. } = self;
        // Among distractors, no two passes over a document are the same.
        let together = if config.distractors == 0 { config.batch_size } else { 1 };
        Order { documents, together, batch: config.effective_batch(), epochs: config.epochs, seed: config.seed }
    }
}

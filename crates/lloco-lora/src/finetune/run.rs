//! The loop: one step after the other, with evaluation and early stopping between.

use std::{fs, ops::ControlFlow, path::Path};

use lloco_decoder::release_memory;
use serde_json::json;

use super::{Evaluation, Event, Example, Outcome, Trainer, evaluate, report::curves};
use crate::{Error, Result, durable::Checkpoints, metrics::Metrics};

impl Trainer<'_> {
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
}

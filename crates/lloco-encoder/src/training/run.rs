//! The loop: stage behind stage, one step after the other.

use std::{
    fs::{self, File},
    io::Write,
    ops::ControlFlow,
    path::Path,
};

use lloco_decoder::release_memory;
use lloco_lora::metrics::Metrics;
use serde_json::json;

use super::{
    CompressorTrainer, Stage, TrainingEvent, TrainingOutcome,
    durable::checkpoints,
    metrics::{EVALUATION, losses},
};
use crate::{Error, Result};

impl CompressorTrainer<'_> {
    /// Does the steps that are left, `limit` at most, in the directory `dir`: checkpoints, `metrics.jsonl`,
    /// `curves.svg` and `curriculum.json` are kept there. `observer` sees each [`TrainingEvent`] and may break off; the
    /// run is then saved, as it is before each evaluation and where an error ends it. An evaluation that a run before this one
    /// owes its last step comes first; where no step is left, one that fails is a warning.
    ///
    /// # Errors
    /// [`Error::NoSample`] before the first step when a stage that is left cannot be evaluated; others as
    /// [`step`](Self::step), [`evaluate`](Self::evaluate) and [`save`](Self::save).
    pub fn run(
        &mut self,
        dir: impl AsRef<Path>,
        limit: Option<usize>,
        observer: &mut dyn FnMut(&TrainingEvent) -> ControlFlow<()>,
    ) -> Result<TrainingOutcome> {
        let (dir, begun) = (dir.as_ref(), self.step);
        let outcome = self.go_on(dir, limit, observer);
        if outcome.is_err()
            && self.step > begun
            && let Err(error) = self.save(dir)
        {
            tracing::warn!(step = self.step, %error, "cannot save what was done before the run failed");
        }
        release_memory();
        outcome
    }

    fn go_on(
        &mut self,
        dir: &Path,
        limit: Option<usize>,
        observer: &mut dyn FnMut(&TrainingEvent) -> ControlFlow<()>,
    ) -> Result<TrainingOutcome> {
        fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.to_path_buf(), source })?;
        checkpoints(dir).check_not_behind(self.step)?;
        for stage in
            self.curriculum.stages.iter().skip(self.curriculum.stage_of(self.step).map_or(usize::MAX, |at| at.0))
        {
            let questions = self.sampler(self.corpus).left_out(stage)?;
            if questions > 0 {
                tracing::warn!(
                    stage = stage.name,
                    questions,
                    "questions that do not fit into the model's window are left out"
                );
            }
            let (stage, corpus) = self.evaluated(stage);
            self.sampler(corpus).batch(&Stage { batch: 1, ..stage }, 0)?;
        }
        self.write_curriculum(dir)?;
        let metrics = Metrics::new(dir);
        metrics.rewind(self.step)?;
        let last = limit.map_or(usize::MAX, |limit| self.step.saturating_add(limit));
        // The run may have been killed between the last checkpoint and the evaluation behind it.
        if let Some(stage) = self.evaluated_stage()
            && !metrics.tells(self.step, EVALUATION)?
        {
            let left = self.step < self.curriculum.steps();
            match self.tell_evaluation(stage, &metrics, observer) {
                Ok(flow) if flow.is_break() && left => return Ok(TrainingOutcome::Interrupted),
                Err(error) if left => return Err(error),
                Err(error) => tracing::warn!(step = self.step, %error, "cannot evaluate the finished run"),
                Ok(_) => {}
            }
        }
        loop {
            if self.step >= self.curriculum.steps() {
                return Ok(TrainingOutcome::Finished);
            }
            if self.step >= last {
                return Ok(TrainingOutcome::Interrupted);
            }
            let report = self.step()?;
            metrics.append(&json!(report))?;
            let mut flow = observer(&TrainingEvent::Step(report));
            let evaluated = self.evaluated_stage();
            let due = self.step.is_multiple_of(self.curriculum.save_every);
            if evaluated.is_some() || due || self.step >= last || flow.is_break() {
                let path = self.save(dir)?;
                metrics.draw(losses)?;
                if observer(&TrainingEvent::Saved { path }).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            if let Some(stage) = evaluated
                && self.tell_evaluation(stage, &metrics, observer)?.is_break()
            {
                flow = ControlFlow::Break(());
            }
            if self.step < self.curriculum.steps() && flow.is_break() {
                return Ok(TrainingOutcome::Interrupted);
            }
        }
    }

    /// The stage of the last step, if an evaluation follows this step.
    fn evaluated_stage(&self) -> Option<usize> {
        let (stage, _) = self.curriculum.stage_of(self.step.checked_sub(1)?)?;
        let next = self.curriculum.stage_of(self.step).map(|(stage, _)| stage);
        let every = self.curriculum.evaluate_every;
        (next != Some(stage) || (every > 0 && self.step.is_multiple_of(every))).then_some(stage)
    }

    fn tell_evaluation(
        &self,
        stage: usize,
        metrics: &Metrics,
        observer: &mut dyn FnMut(&TrainingEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let evaluation = self.evaluate(stage)?;
        metrics.append(&json!({"step": self.step, EVALUATION: evaluation}))?;
        metrics.draw(losses)?;
        Ok(observer(&TrainingEvent::Evaluated { step: self.step, evaluation }))
    }

    /// Puts the curriculum beside the checkpoints: the file is the old one or the new one, and whole.
    fn write_curriculum(&self, dir: &Path) -> Result<()> {
        let json = self.curriculum_json()?;
        let (path, partial) = (dir.join("curriculum.json"), dir.join(".curriculum.json.partial"));
        let written = File::create(&partial).and_then(|mut file| {
            file.write_all(json.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        });
        written.map_err(|source| {
            // Nothing more can be done about a file that stays; the next run replaces it.
            let _ = fs::remove_file(&partial);
            Error::Io { path, source }
        })
    }
}

//! Offline, second half: one adapter for a group.

mod config;
mod examples;

use std::{
    fs, io,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use lloco_lora::{Adapter, Event as TrainerEvent, Example, Outcome, StoredType, TrainConfig, Trainer};

pub use config::FinetuneConfig;

use crate::{
    Error, Event, Lloco, Result,
    dataset::{self, QaDocument},
    store::Store,
};

/// What finetuning did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finetuned {
    /// The group.
    pub group: String,
    /// Version of the adapter that is in use now. Where an earlier step did best on the held-out questions, the adapter
    /// of the last step is the version before.
    pub version: u32,
    /// Question/answer pairs learned.
    pub examples: usize,
    /// Steps done; 0 when this adapter was there already.
    pub steps: usize,
    /// Mean loss of an answer token in the first and in the last step done.
    pub losses: Option<(f64, f64)>,
    /// Mean divergence from the text's reading in the first and in the last step done, where it was learned.
    pub divergences: Option<(f64, f64)>,
    /// Mean loss of an answer token of the held-out questions under the adapter that is in use now, and the step that it
    /// is of.
    pub held_out: Option<(f64, usize)>,
    /// Positions read in training, summary vectors included.
    pub positions: u64,
    /// Floating-point operations of the steps, as [`Decoder::operations`](crate::Decoder::operations) counts them.
    pub operations: f64,
    /// Time spent in the steps.
    pub stepping: Duration,
    /// Time spent.
    pub time: Duration,
}

impl Lloco {
    /// Trains one adapter for a group, on questions about its compressed documents, and makes it the group's own.
    ///
    /// The same settings, questions and summaries give the adapter that is there already, without work. An interrupted
    /// run goes on from its last checkpoint; with another setting, such as a lower learning rate, it is another run and begins
    /// anew. With a compressor that has a reader, the adapter begins as that.
    ///
    /// # Errors
    /// When the questions cannot be read or ask about none of the group's documents, a setting is out of range, the shape
    /// that is asked for has no room for the compressor's reader, or training or storing fails.
    pub fn finetune(&self, group: &str, config: &FinetuneConfig) -> Result<Finetuned> {
        self.finetune_on(group, &dataset::read(&config.questions)?, config)
    }

    /// [`finetune`](Self::finetune) on questions that are in memory; `config.questions` only names them.
    ///
    /// # Errors
    /// As [`finetune`](Self::finetune).
    pub fn finetune_on(&self, group: &str, documents: &[QaDocument], config: &FinetuneConfig) -> Result<Finetuned> {
        let start = Instant::now();
        let kept = config.kept(documents)?;
        let file = config.held_out.as_deref().map(dataset::read).transpose()?;
        let (mut held_out, learned): (Vec<&QaDocument>, Vec<&QaDocument>) =
            documents.iter().partition(|document| kept.contains(document.id.as_str()));
        held_out.extend(file.iter().flatten());
        let asked = self.asked(group, learned, &config.questions)?;
        let held_out = match held_out.is_empty() {
            true => Vec::new(),
            false => self.asked(group, held_out, config.held_out.as_ref().unwrap_or(&config.questions))?,
        };
        let training = self.settings(config, !held_out.is_empty())?;
        let (mut examples, held_out, purpose) = self.examples(&asked, &held_out, &training, config.distil)?;
        let run = self.store.path().join("runs").join(&purpose);
        if let Some(version) = self.trained_for(group, &purpose)? {
            clear(&run);
            let (steps, losses, divergences, held_out, positions) = (0, None, None, None, 0);
            return Ok(Finetuned {
                group: group.into(),
                version,
                examples: examples.len(),
                steps,
                losses,
                divergences,
                held_out,
                positions,
                operations: 0.0,
                stepping: Duration::ZERO,
                time: start.elapsed(),
            });
        }
        let count = examples.len();
        if let Some(top) = config.distil {
            // What training would refuse is refused before all texts are read.
            self.trainer(&training, examples.clone(), held_out.clone())?;
            examples = self.taught(examples, &asked, top)?;
        }
        let mut trainer = self.trainer(&training, examples, held_out)?;
        trainer.resume(&run)?;
        let begun = trainer.steps_done();
        let mut losses: Option<(f64, f64)> = None;
        let mut divergences: Option<(f64, f64)> = None;
        let (mut positions, mut operations, mut stepping) = (0, 0.0, 0.0);
        let outcome = trainer.run(Some(&run), &mut |event| match event {
            TrainerEvent::Step(step) => {
                losses = Some((losses.map_or(step.loss, |(first, _)| first), step.loss));
                if let Some(divergence) = step.divergence {
                    divergences = Some((divergences.map_or(divergence, |(first, _)| first), divergence));
                }
                positions += step.positions as u64;
                operations += step.operations;
                stepping += step.seconds;
                let (step, of, loss, positions) = (step.step, step.of, step.loss, step.positions);
                self.observer.flow(&Event::Finetuned { step, of, loss, positions })
            }
            TrainerEvent::Evaluated { step, evaluation, best } => {
                self.observer.flow(&Event::HeldOut { step: *step, loss: evaluation.nll, best: *best })
            }
            _ => ControlFlow::Continue(()),
        })?;
        if outcome == Outcome::Interrupted {
            return Err(Error::Interrupted);
        }
        let (last, best) = (trainer.adapter(), trainer.best());
        let earlier = best.filter(|&(_, _, step)| step < trainer.steps_done()).map(|(adapter, _, _)| adapter);
        // The last adapter first: what stands last is in use, and says that the run is done.
        if earlier.is_some() {
            self.keep(group, last, None)?;
        }
        let version = self.keep(group, earlier.unwrap_or(last), Some((&purpose, &run)))?;
        clear(&run);
        let steps = trainer.steps_done() - begun;
        let held_out = best.map(|(_, nll, step)| (nll, step));
        Ok(Finetuned {
            group: group.into(),
            version,
            examples: count,
            steps,
            losses,
            divergences,
            held_out,
            positions,
            operations,
            stepping: Duration::from_secs_f64(stepping),
            time: start.elapsed(),
        })
    }

    /// Stores an adapter as the group's newest version; with what a run of this purpose ends with, the label that says so,
    /// and the run's curves.
    fn keep(&self, group: &str, adapter: &Adapter, end: Option<(&str, &Path)>) -> Result<u32> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |error| Error::io(action, &path, error)
        };
        let room = self.store.path().join("tmp");
        fs::create_dir_all(&room).map_err(io("create", &room))?;
        let draft = tempfile::tempdir_in(&room).map_err(io("write into", &room))?;
        let directory = draft.path().join("adapter");
        adapter.save(&directory, StoredType::F16)?;
        if let Some((purpose, run)) = end {
            let label = directory.join(PURPOSE);
            fs::write(&label, purpose).map_err(io("write", &label))?;
            for (from, to) in CURVES.map(|name| (run.join(name), directory.join(name))) {
                if from.exists() {
                    fs::copy(from, &to).map_err(io("write", &to))?;
                }
            }
        }
        Ok(self.store.put_adapter(group, &directory)?.version)
    }

    /// The group's current adapter version, if it was trained for exactly this.
    fn trained_for(&self, group: &str, purpose: &str) -> Result<Option<u32>> {
        let Some(adapter) = self.store.adapter(group)? else { return Ok(None) };
        let label = fs::read_to_string(adapter.path.join(PURPOSE)).unwrap_or_default();
        Ok((label == purpose).then_some(adapter.version))
    }

    /// A trainer that has done nothing yet, at which a group's adapter starts: what was learned about reading summaries, if
    /// anything was.
    fn trainer(&self, training: &TrainConfig, examples: Vec<Example>, held_out: Vec<Example>) -> Result<Trainer<'_>> {
        let mut trainer = Trainer::new(self.encoder.decoder(), training.clone(), examples)?;
        if let Some(reader) = self.encoder.reader() {
            let begun = trainer.adapter().clone().beginning_as(reader)?;
            trainer = trainer.with_adapter(begun);
        }
        Ok(trainer.with_held_out(held_out)?)
    }
}

/// Removes a run's checkpoints, which have served; a leftover costs disk and nothing else.
fn clear(run: &Path) {
    match fs::remove_dir_all(run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %run.display(), %error, "checkpoints left behind");
        }
        _ => {}
    }
}

/// What a run leaves beside its checkpoints, and its adapter takes along.
const CURVES: [&str; 2] = ["metrics.jsonl", "curves.svg"];

/// File beside a stored adapter that says what it was trained for. Of a run that stores two, only the second has it: a
/// process that is killed between them has not done the work.
const PURPOSE: &str = "lloco_purpose.txt";

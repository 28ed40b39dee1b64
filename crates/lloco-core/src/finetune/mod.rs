//! Offline, second half: one adapter for a group.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use lloco_decoder::NoAdapter;
use lloco_lora::{
    Event as TrainerEvent, Example, Outcome, StoredType, SummaryVectors, TrainConfig, Trainer, finetune::Teacher,
};

use crate::{
    Error, Event, Lloco, Result,
    dataset::{self, QaDocument},
    digest::{Digest, Hasher},
    members::Asked,
    reading::Reading,
    store::{Document, Store},
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
    /// Learn also what the model itself predicts when it reads the text: so many of its likeliest tokens for each of an
    /// answer's. The weight is [`TrainConfig::distillation`].
    pub distil: Option<usize>,
    /// Settings of the run.
    pub training: TrainConfig,
}

impl FinetuneConfig {
    /// The default settings on the questions of a JSONL file.
    pub fn new(questions: impl Into<PathBuf>) -> Self {
        Self { questions: questions.into(), held_out: None, distil: None, training: TrainConfig::default() }
    }

    /// Judges the run by the questions of another JSONL file.
    #[must_use]
    pub fn with_held_out(mut self, questions: impl Into<PathBuf>) -> Self {
        self.held_out = Some(questions.into());
        self
    }

    /// Learns also the `top` likeliest tokens that the model predicts when it reads the question's passage, or the text of
    /// its documents as far as the window reaches. Takes one reading of each before training begins.
    #[must_use]
    pub fn with_distillation(mut self, top: usize) -> Self {
        self.distil = Some(top);
        self
    }

    /// Sets the settings of the run.
    #[must_use]
    pub fn with_training(mut self, training: TrainConfig) -> Self {
        self.training = training;
        self
    }
}

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
    /// Time spent.
    pub time: Duration,
}

impl Lloco {
    /// Trains one adapter for a group, on questions about its compressed documents, and makes it the group's own.
    ///
    /// The same settings, questions and summaries give the adapter that is there already, without work. An interrupted
    /// run goes on from its last checkpoint.
    ///
    /// # Errors
    /// When the questions cannot be read or ask about none of the group's documents, a setting is out of range, or
    /// training or storing fails.
    pub fn finetune(&self, group: &str, config: &FinetuneConfig) -> Result<Finetuned> {
        self.finetune_on(group, &dataset::read(&config.questions)?, config)
    }

    /// [`finetune`](Self::finetune) on questions that are in memory; `config.questions` only names them.
    ///
    /// # Errors
    /// As [`finetune`](Self::finetune).
    pub fn finetune_on(&self, group: &str, documents: &[QaDocument], config: &FinetuneConfig) -> Result<Finetuned> {
        let start = Instant::now();
        let asked = self.asked(group, documents, &config.questions)?;
        let held_out = config.held_out.as_deref().map(dataset::read).transpose()?;
        let held_out = match (&config.held_out, &held_out) {
            (Some(path), Some(documents)) => self.asked(group, documents, path)?,
            _ => Vec::new(),
        };
        let (mut examples, held_out, purpose) = self.examples(&asked, &held_out, config)?;
        if let Some(version) = self.trained_for(group, &purpose)? {
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
                time: start.elapsed(),
            });
        }
        if let Some(top) = config.distil {
            examples = self.taught(examples, &asked, top)?;
        }
        let count = examples.len();
        let run = self.store.path().join("runs").join(&purpose);
        let decoder = self.encoder.decoder();
        let mut trainer = Trainer::new(decoder, config.training.clone(), examples)?;
        if let Some(reader) = self.encoder.reader() {
            // What was learned about reading summaries is where a group's adapter starts, in the reader's shape.
            trainer = trainer.with_adapter(reader.without_saved());
        }
        trainer = trainer.with_held_out(held_out)?;
        trainer.resume(&run)?;
        let begun = trainer.steps_done();
        let mut losses: Option<(f64, f64)> = None;
        let mut divergences: Option<(f64, f64)> = None;
        let mut positions = 0;
        let outcome = trainer.run(Some(&run), &mut |event| match event {
            TrainerEvent::Step(step) => {
                losses = Some((losses.map_or(step.loss, |(first, _)| first), step.loss));
                if let Some(divergence) = step.divergence {
                    divergences = Some((divergences.map_or(divergence, |(first, _)| first), divergence));
                }
                positions += step.positions as u64;
                self.observer.flow(&Event::Finetuned { step: step.step, of: step.of, loss: step.loss })
            }
            TrainerEvent::Evaluated { step, evaluation, best } => {
                self.observer.flow(&Event::HeldOut { step: *step, loss: evaluation.nll, best: *best })
            }
            _ => ControlFlow::Continue(()),
        })?;
        if outcome == Outcome::Interrupted {
            return Err(Error::Interrupted);
        }
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |error| Error::io(action, &path, error)
        };
        let room = self.store.path().join("tmp");
        fs::create_dir_all(&room).map_err(io("create", &room))?;
        let draft = tempfile::tempdir_in(&room).map_err(io("write into", &room))?;
        // The last adapter first: what stands last is in use.
        let (last, best) = (trainer.adapter(), trainer.best());
        let earlier = best.filter(|&(_, _, step)| step < trainer.steps_done()).map(|(adapter, _, _)| adapter);
        let mut version = 0;
        for (name, adapter) in [("last", Some(last)), ("best", earlier)] {
            let Some(adapter) = adapter else { continue };
            let directory = draft.path().join(name);
            adapter.save(&directory, StoredType::F16)?;
            let label = directory.join(PURPOSE);
            fs::write(&label, &purpose).map_err(io("write", &label))?;
            version = self.store.put_adapter(group, &directory)?.version;
        }
        // The checkpoints have served; a leftover costs disk and nothing else.
        if let Err(error) = fs::remove_dir_all(&run) {
            tracing::warn!(path = %run.display(), %error, "checkpoints left behind");
        }
        let steps = trainer.steps_done() - begun;
        let held_out = best.map(|(_, nll, step)| (nll, step));
        let (group, time) = (group.into(), start.elapsed());
        Ok(Finetuned { group, version, examples: count, steps, losses, divergences, held_out, positions, time })
    }

    /// The examples to learn and those held out, and a digest of all that the resulting adapter depends on.
    fn examples(
        &self,
        learned: &[Asked<'_>],
        held_out: &[Asked<'_>],
        config: &FinetuneConfig,
    ) -> Result<(Vec<Example>, Vec<Example>, String)> {
        let mut purpose = Hasher::labelled("lloco finetune 2");
        purpose.field(self.info.id().bytes());
        purpose.field(self.reader_digest()?.bytes());
        purpose.field(&serde_json::to_vec(&config.training).unwrap_or_default());
        purpose.number(config.distil.map_or(0, |top| top as u64 + 1));
        let mut examples = Vec::new();
        let mut summaries: HashMap<Digest, (SummaryVectors, Digest)> = HashMap::new();
        for asked in learned.iter().chain(held_out) {
            let answer = self.prompts.answer(asked.answer())?;
            let Asked { question, documents } = asked;
            let prompt = self.prompts.question(&question.question)?;
            // The tokens and not the text: the words around a question may change.
            purpose.field(bytemuck::cast_slice(&prompt));
            purpose.field(bytemuck::cast_slice(&answer));
            purpose.number(documents.len() as u64);
            let mut example = Example::new(&question.id, prompt, answer);
            if config.distil.is_some() {
                purpose.field(format!("{:?}", question.passage).as_bytes());
                documents.iter().for_each(|document| purpose.field(document.text.bytes()));
            }
            for Document { id, text, .. } in documents {
                let (vectors, digest) = match summaries.entry(*text) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => {
                        let summary = self.store.summary(id, &self.info)?;
                        let digest = Digest::of(bytemuck::cast_slice(summary.data()));
                        let hidden = summary.hidden();
                        free.insert((SummaryVectors::new(summary.into_data(), hidden)?, digest))
                    }
                };
                purpose.field(digest.bytes());
                example = example.with_prefix(vectors.clone());
            }
            examples.push(example);
        }
        let held_out = examples.split_off(learned.len());
        if !held_out.is_empty() {
            purpose.number(held_out.len() as u64);
        }
        Ok((examples, held_out, purpose.finish().to_string()))
    }

    /// The examples with what the model itself predicts when it reads the text.
    fn taught(&self, examples: Vec<Example>, asked: &[Asked<'_>], top: usize) -> Result<Vec<Example>> {
        if top == 0 {
            let (field, found, expected) = ("distil", "0".into(), "at least 1".into());
            return Err(Error::Encoder(lloco_encoder::Error::InvalidSetting { field, found, expected }));
        }
        let decoder = self.encoder.decoder();
        let mut reading = Reading::new(decoder, Arc::new(NoAdapter));
        let total = examples.len();
        let taught = examples.into_iter().zip(asked).enumerate().map(|(index, (example, asked))| {
            let text = match (asked.question.passage, asked.documents.first()) {
                (Some((start, end)), Some(document)) => {
                    let text = self.store.text(&document.text)?;
                    let passage = text.get(start..end).ok_or_else(|| Error::NoSuchPassage {
                        question: asked.question.id.clone(),
                        document: document.id.clone(),
                        start,
                        end,
                        bytes: text.len(),
                    });
                    passage?.to_owned()
                }
                _ => self.text_in_window(asked, example.answer_ids.len())?.0,
            };
            let ids = self.prompts.with_text(&text, &asked.question.question)?;
            let (positions, window) = (ids.len() + example.answer_ids.len(), decoder.config().max_position_embeddings);
            if positions > window {
                return Err(Error::PromptTooLong { positions, window });
            }
            reading.prompt(&[], &ids)?;
            let teacher = Teacher::new(decoder, &reading.rows(&example.answer_ids)?, top)?;
            self.observer.tell(&Event::Taught { done: index + 1, total })?;
            Ok(example.with_teacher(teacher))
        });
        taught.collect()
    }

    /// A digest of who reads summaries before finetuning: the adapter that came with the encoder, if there is one. The
    /// model itself is part of the encoder's identity.
    fn reader_digest(&self) -> Result<Digest> {
        let mut digest = Hasher::labelled("lloco reader 1");
        if let Some(reader) = self.encoder.reader() {
            digest.field(&serde_json::to_vec(reader.config()).unwrap_or_default());
            for (name, tensor) in reader.parameters() {
                digest.field(name.as_bytes());
                digest.field(bytemuck::cast_slice(&lloco_lora::durable::values(&name, tensor)?));
            }
        }
        Ok(digest.finish())
    }

    /// The group's current adapter version, if it was trained for exactly this.
    fn trained_for(&self, group: &str, purpose: &str) -> Result<Option<u32>> {
        let Some(adapter) = self.store.adapter(group)? else { return Ok(None) };
        let label = fs::read_to_string(adapter.path.join(PURPOSE)).unwrap_or_default();
        Ok((label == purpose).then_some(adapter.version))
    }
}

/// File beside a stored adapter that says what it was trained for.
const PURPOSE: &str = "lloco_purpose.txt";

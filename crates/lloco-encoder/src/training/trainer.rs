//! The loop: stage behind stage, one step after the other.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use lloco_decoder::{Decoder, mix, release_memory};
use lloco_lora::{TrainConfig, finetune::AdamW, metrics::Metrics};
use serde::Serialize;
use serde_json::json;

use super::{
    Corpus, Curriculum, Evaluation, Stage, Wording,
    batch::batch_gradients,
    durable::checkpoints,
    evaluate::evaluate,
    losses::{Kind, Tally},
    metrics::losses,
    origin::Origin,
    sampler::Sampler,
    start::{mean_embedding, rarity_score},
};
use crate::{Compressor, Error, Mode, Result};

/// A training run of a compressor.
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use lloco_decoder::{Checkpoint, Decoder};
/// use lloco_encoder::{CompressorTrainer, Corpus, Curriculum, Wording};
///
/// # fn train(checkpoint: &Checkpoint, decoder: &Decoder, wording: &dyn Wording) -> lloco_encoder::Result<()> {
/// let curriculum = Curriculum::from_file("curriculum.json")?;
/// let corpus = Corpus::open(&["books.jsonl"])?;
/// let mut trainer = CompressorTrainer::new(decoder, &checkpoint.fingerprint(), curriculum, &corpus, wording)?;
/// trainer.resume("run")?;
/// trainer.run("run", None, &mut |_event| ControlFlow::Continue(()))?; // checkpoints, metrics, curves in `run`
/// trainer.export("run/compressor")?;
/// # Ok(())
/// # }
/// ```
pub struct CompressorTrainer<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) curriculum: Curriculum,
    pub(super) corpus: &'a Corpus,
    held_out: Option<&'a Corpus>,
    wording: &'a dyn Wording,
    pub(super) compressor: Compressor,
    pub(super) optimizer: AdamW,
    /// What the run began with, if not with new weights.
    pub(super) origin: Option<Origin>,
    /// Steps done.
    pub(super) step: usize,
    /// Draws from the data.
    pub(super) drawn: u64,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CompressorStep {
    /// The step, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub of: usize,
    /// Name of the stage.
    pub stage: String,
    /// The sum of all losses under their weights, before the step.
    pub loss: f64,
    /// Each loss by itself, a mean over its tokens, without its weight; `gap` is how much worse another document's
    /// summaries are.
    pub losses: BTreeMap<String, f64>,
    /// Tokens of text that were compressed.
    pub tokens: usize,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The share of the stage's learning rates.
    pub rate: f64,
    /// Time taken.
    pub seconds: f64,
}

/// What happens during a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrainingEvent {
    /// A step is done.
    Step(CompressorStep),
    /// Samples were scored after a step.
    Evaluated {
        /// The step.
        step: usize,
        /// The scores.
        evaluation: Evaluation,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Its directory.
        path: PathBuf,
    },
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrainingOutcome {
    /// All stages are done.
    Finished,
    /// The observer asked to stop, or the limit of steps was reached. Everything done is saved.
    Interrupted,
}

impl<'a> CompressorTrainer<'a> {
    /// A run from new weights. `base` is the fingerprint of the decoder's checkpoint.
    ///
    /// # Errors
    /// When a setting is out of range or does not fit the model, or the data has no sample for the first stage.
    pub fn new(
        decoder: &'a Decoder,
        base: &str,
        curriculum: Curriculum,
        corpus: &'a Corpus,
        wording: &'a dyn Wording,
    ) -> Result<Self> {
        let Curriculum { mode, encoder, reader, seed, .. } = &curriculum;
        let compressor = Compressor::init(mode.clone(), encoder.clone(), reader.clone(), decoder, base, *seed)?;
        if let Some(stage) = curriculum.stages.first() {
            Sampler { corpus, wording, seed: *seed }.batch(&Stage { batch: 1, ..stage.clone() }, 0)?;
        }
        let mut settings = TrainConfig::default();
        settings.beta_1 = curriculum.optimizer.beta_1;
        settings.beta_2 = curriculum.optimizer.beta_2;
        settings.epsilon = curriculum.optimizer.epsilon;
        settings.weight_decay = curriculum.optimizer.weight_decay;
        let optimizer = AdamW::new(&settings);
        Ok(Self {
            decoder,
            curriculum,
            corpus,
            held_out: None,
            wording,
            compressor,
            optimizer,
            origin: None,
            step: 0,
            drawn: 0,
        })
    }

    /// Evaluates on these documents instead of those that are learned.
    #[must_use]
    pub fn with_held_out(mut self, corpus: &'a Corpus) -> Self {
        self.held_out = Some(corpus);
        self
    }

    /// The compressor as it is now.
    pub fn compressor(&self) -> &Compressor {
        &self.compressor
    }

    /// The curriculum.
    pub fn curriculum(&self) -> &Curriculum {
        &self.curriculum
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Does the next step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when losses or gradients are no numbers; weights are then as before.
    pub fn step(&mut self) -> Result<CompressorStep> {
        let start = Instant::now();
        if self.step == 0 && self.origin.is_none() {
            self.begin()?;
        }
        let Some((index, within)) = self.curriculum.stage_of(self.step) else {
            let (found, expected) = (self.step.to_string(), "a step of the curriculum: all are done".into());
            return Err(Error::InvalidSetting { field: "step", found, expected });
        };
        let Some(stage) = self.curriculum.stages.get(index) else { return Err(Error::EmptyDocument) };
        let seed = mix(self.curriculum.seed ^ mix(self.step as u64));
        let (samples, drawn) = self.sampler(self.corpus).batch(stage, self.drawn)?;
        let micro_batch = self.curriculum.micro_batch;
        let (tally, mut gradients) =
            batch_gradients(self.decoder, &self.compressor, stage, &samples, micro_batch, seed)?;
        let grad_norm = gradients.norm()?;
        let loss = total(&tally, stage);
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(Error::NotFinite {
                what: format!("loss {loss}, norm of the gradients {grad_norm}"),
                step: self.step + 1,
                samples: samples.into_iter().map(|sample| sample.name).collect(),
            });
        }
        let most = self.curriculum.optimizer.max_grad_norm;
        if grad_norm > most {
            gradients = gradients.scaled(most / (grad_norm + 1e-6));
        }
        let rate = stage.rate_at(within);
        let (rates, optimizer) = (stage.learning_rates, &mut self.optimizer);
        let weights = self.compressor.weights.map(|name, parameter| match gradients.get(name) {
            Some(gradient) => optimizer.update(rates.of(name) * rate, name, parameter, gradient),
            None => parameter,
        });
        let report = CompressorStep {
            step: self.step + 1,
            of: self.curriculum.steps(),
            stage: stage.name.clone(),
            loss,
            losses: tally.means(),
            tokens: samples.iter().map(|sample| sample.context.len()).sum(),
            grad_norm,
            rate,
            seconds: start.elapsed().as_secs_f64(),
        };
        self.compressor.weights = weights;
        self.step += 1;
        self.compressor.config.steps = self.step + self.origin.as_ref().map_or(0, |origin| origin.steps);
        self.drawn = drawn;
        Ok(report)
    }

    /// Lets the connector start from the text to learn from.
    fn begin(&mut self) -> Result<()> {
        let (Mode::Pooled(pooled), Some(stage)) = (&self.curriculum.mode, self.curriculum.stages.first()) else {
            return Ok(());
        };
        let (samples, _) = self.sampler(self.corpus).batch(&Stage { batch: 256, ..stage.clone() }, 0)?;
        let (center, score) = (mean_embedding(self.decoder, &samples)?, rarity_score(self.decoder, pooled, &samples)?);
        if let Some(connector) = &mut self.compressor.weights.connector {
            (connector.center, connector.score) = (center, score);
        }
        Ok(())
    }

    /// Does the steps that are left, `limit` at most, in the directory `dir`: checkpoints, `metrics.jsonl`,
    /// `curves.svg` and `curriculum.json` are kept there. `observer` sees each [`TrainingEvent`] and may break off; the
    /// run is then saved.
    ///
    /// # Errors
    /// As [`step`](Self::step) and [`save`](Self::save).
    pub fn run(
        &mut self,
        dir: impl AsRef<Path>,
        limit: Option<usize>,
        observer: &mut dyn FnMut(&TrainingEvent) -> ControlFlow<()>,
    ) -> Result<TrainingOutcome> {
        let outcome = self.go_on(dir.as_ref(), limit, observer);
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
        let path = dir.join("curriculum.json");
        fs::write(&path, self.curriculum_json()?).map_err(|source| Error::Io { path, source })?;
        let metrics = Metrics::new(dir);
        metrics.rewind(self.step)?;
        let last = limit.map_or(usize::MAX, |limit| self.step.saturating_add(limit));
        loop {
            let Some((stage, _)) = self.curriculum.stage_of(self.step) else { return Ok(TrainingOutcome::Finished) };
            if self.step >= last {
                return Ok(TrainingOutcome::Interrupted);
            }
            let report = self.step()?;
            metrics.append(&json!(report))?;
            let mut flow = observer(&TrainingEvent::Step(report));
            let every = self.curriculum.evaluate_every;
            let next = self.curriculum.stage_of(self.step).map(|(stage, _)| stage);
            if next != Some(stage) || (every > 0 && self.step.is_multiple_of(every)) {
                let evaluation = self.evaluate(stage)?;
                metrics.append(&json!({"step": self.step, "evaluation": evaluation}))?;
                if observer(&TrainingEvent::Evaluated { step: self.step, evaluation }).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            let due = self.step.is_multiple_of(self.curriculum.save_every);
            if due || next.is_none() || self.step >= last || flow.is_break() {
                let path = self.save(dir)?;
                metrics.draw(losses)?;
                let saved = observer(&TrainingEvent::Saved { path });
                if next.is_some() && (flow.is_break() || saved.is_break()) {
                    return Ok(TrainingOutcome::Interrupted);
                }
            }
        }
    }

    /// Scores samples of the held-out documents, or of those that are learned, as a stage sees them.
    ///
    /// # Errors
    /// When there is no such stage, or no sample for it.
    pub fn evaluate(&self, stage: usize) -> Result<Evaluation> {
        let Some(stage) = self.curriculum.stages.get(stage) else {
            let (found, expected) = (stage.to_string(), format!("one of {} stages", self.curriculum.stages.len()));
            return Err(Error::InvalidSetting { field: "stage", found, expected });
        };
        let mut stage = stage.clone();
        stage.batch = stage.documents.unwrap_or(32).min(64);
        stage.losses.continuation = stage.losses.continuation.max(f64::MIN_POSITIVE);
        let overfits = stage.documents.is_some();
        if overfits {
            stage.losses.continuation = 0.0;
        }
        let corpus = self.held_out.filter(|_| !overfits).unwrap_or(self.corpus);
        let (samples, _) = self.sampler(corpus).batch(&stage, 0)?;
        evaluate(self.decoder, &self.compressor, &stage, &samples, self.curriculum.micro_batch)
    }

    /// Writes the compressor as a directory, in half precision, with the curriculum beside it.
    ///
    /// # Errors
    /// When `dir` exists already or writing fails.
    pub fn export(&self, dir: impl AsRef<Path>) -> Result<()> {
        let curriculum = self.curriculum_json()?;
        self.compressor.save(dir, lloco_lora::StoredType::F16, &[("curriculum.json", curriculum.as_bytes())])
    }

    fn curriculum_json(&self) -> Result<String> {
        let path = PathBuf::from("curriculum.json");
        let json = serde_json::to_string_pretty(&self.curriculum);
        json.map_err(|e| Error::Malformed { path, detail: e.to_string() })
    }

    fn sampler<'s>(&'s self, corpus: &'s Corpus) -> Sampler<'s> {
        Sampler { corpus, wording: self.wording, seed: self.curriculum.seed }
    }
}

/// The sum of all losses under their weights.
fn total(tally: &Tally, stage: &Stage) -> f64 {
    let losses = &stage.losses;
    let own = Kind::ALL.map(|kind| (kind.name(), losses.weight(kind)));
    let others = [("next_token", losses.next_token), ("kl", losses.kl), ("binding", losses.binding)];
    own.into_iter().chain(others).filter_map(|(name, weight)| Some(weight * tally.mean(name)?)).sum()
}

//! A run: its curriculum, its data, and how far it is.

use std::path::{Path, PathBuf};

use lloco_decoder::Decoder;
use lloco_lora::{TrainConfig, finetune::AdamW};

use super::{
    CompressorStep, Corpus, Curriculum, Evaluation, Stage, Wording, evaluate::evaluate, origin::Origin,
    sampler::Sampler, window::Window,
};
use crate::{Compressor, Error, Result};

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
    /// [`Error::Curriculum`] for a setting out of range, or a stage that reads more than the model's window holds;
    /// [`Error::NoSample`] when the data has no sample for a stage; others when a setting does not fit the model.
    pub fn new(
        decoder: &'a Decoder,
        base: &str,
        curriculum: Curriculum,
        corpus: &'a Corpus,
        wording: &'a dyn Wording,
    ) -> Result<Self> {
        let origin = Path::new("curriculum");
        curriculum.check(origin)?;
        let Curriculum { mode, encoder, reader, seed, .. } = &curriculum;
        let compressor = Compressor::init(mode.clone(), encoder.clone(), reader.clone(), decoder, base, *seed)?;
        let mut settings = TrainConfig::default();
        settings.beta_1 = curriculum.optimizer.beta_1;
        settings.beta_2 = curriculum.optimizer.beta_2;
        settings.epsilon = curriculum.optimizer.epsilon;
        settings.weight_decay = curriculum.optimizer.weight_decay;
        let optimizer = AdamW::new(&settings);
        let trainer = Self {
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
        };
        for (index, stage) in trainer.curriculum.stages.iter().enumerate() {
            trainer.window().check(index, stage, origin)?;
            trainer.sampler(corpus).batch(&Stage { batch: 1, ..stage.clone() }, 0)?;
        }
        Ok(trainer)
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

    /// Scores samples of the held-out documents, or of those that are learned, as a stage sees them.
    ///
    /// # Errors
    /// When there is no such stage, or no sample for it.
    pub fn evaluate(&self, stage: usize) -> Result<Evaluation> {
        let Some(stage) = self.curriculum.stages.get(stage) else {
            let (found, expected) = (stage.to_string(), format!("one of {} stages", self.curriculum.stages.len()));
            return Err(Error::InvalidSetting { field: "stage", found, expected });
        };
        let (stage, corpus) = self.evaluated(stage);
        let (samples, _) = self.sampler(corpus).batch(&stage, 0)?;
        evaluate(self.decoder, &self.compressor, &stage, &samples, self.curriculum.micro_batch)
    }

    /// A stage as it is evaluated, and the documents for that: every sample is reconstructed and, unless the stage
    /// overfits, continued.
    pub(super) fn evaluated(&self, stage: &Stage) -> (Stage, &'a Corpus) {
        let (mut stage, overfits) = (stage.clone(), stage.documents.is_some());
        stage.batch = stage.documents.unwrap_or(32).min(64);
        let losses = &mut stage.losses;
        losses.reconstruction = losses.reconstruction.max(f64::MIN_POSITIVE);
        losses.continuation = if overfits { 0.0 } else { losses.continuation.max(f64::MIN_POSITIVE) };
        (stage, self.held_out.filter(|_| !overfits).unwrap_or(self.corpus))
    }

    /// Writes the compressor as a directory, in half precision, with the curriculum beside it.
    ///
    /// # Errors
    /// When `dir` exists already or writing fails.
    pub fn export(&self, dir: impl AsRef<Path>) -> Result<()> {
        let curriculum = self.curriculum_json()?;
        self.compressor.save(dir, lloco_lora::StoredType::F16, &[("curriculum.json", curriculum.as_bytes())])
    }

    pub(super) fn curriculum_json(&self) -> Result<String> {
        let path = PathBuf::from("curriculum.json");
        let json = serde_json::to_string_pretty(&self.curriculum);
        json.map_err(|e| Error::Malformed { path, detail: e.to_string() })
    }

    pub(super) fn sampler<'s>(&'s self, corpus: &'s Corpus) -> Sampler<'s> {
        Sampler { corpus, wording: self.wording, window: self.window(), seed: self.curriculum.seed }
    }

    fn window(&self) -> Window<'_> {
        Window { positions: self.decoder.config().max_position_embeddings, mode: &self.curriculum.mode }
    }
}

//! LoRA adapters for `lloco-decoder`: factored, read from and written to PEFT directories, several in one batch, and
//! finetuned on questions behind summary vectors.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use lloco_decoder::{Checkpoint, Decoder, GenerateConfig, Prompt, WeightType, burn::tensor::Device};
//! use lloco_lora::{Adapter, Example, StoredType, SummaryVectors, TrainConfig, Trainer};
//!
//! # fn main() -> lloco_lora::Result<()> {
//! # let (summaries, prompt_ids, answer_ids) = (vec![0.0; 576], vec![1], vec![2]);
//! let device = Device::default();
//! let decoder = Decoder::load(&Checkpoint::open("models/SmolLM2-135M-Instruct")?, WeightType::Auto, &device)?;
//!
//! // Learn to answer behind the summary vectors of a document.
//! let vectors = SummaryVectors::new(summaries, decoder.config().hidden_size)?;
//! let example = Example::new("q1", prompt_ids.clone(), answer_ids).with_prefix(vectors.clone());
//! let mut trainer = Trainer::new(&decoder, TrainConfig::default(), vec![example])?;
//! trainer.run(None, &mut |_event| ControlFlow::Continue(()))?;
//! trainer.adapter().save("adapters/meetings", StoredType::F16)?;
//!
//! // Answer with it.
//! let adapter = Adapter::load("adapters/meetings", decoder.config(), &device)?;
//! let prompt = Prompt::new().embeddings(vectors.to_tensor(&device)).text(&prompt_ids);
//! for token in decoder.generate(&prompt, &GenerateConfig::greedy(50), &adapter)? {
//!     let _id: u32 = token?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | noun | meaning |
//! |---|---|
//! | [`LoraConfig`] | which projections are adapted, with what rank and scale; PEFT's names |
//! | [`Adapter`] | the factors, and modules replaced as a whole |
//! | [`AdapterBatch`] | another adapter, or none, for each sequence of a batch |
//! | [`Example`] | summary vectors and a prompt to read, the answer to give |
//! | [`TrainConfig`] | the settings of a finetuning run |
//! | [`Trainer`] | a run: steps, evaluation, checkpoints, resuming |
//!
//! The parts of a training step, for other trainings over an adapter, are in [`finetune`]; what keeps a run and its
//! measurements on the disk is in [`durable`] and [`metrics`].
//!
//! burn has LoRA of its own, which composes `W + scale * B A` for each projection and so pays for a full weight
//! gradient. Here the factors stay apart: the backward pass costs about a forward pass.
//!
//! Options of PEFT that would change what an adapter computes and are not implemented, such as DoRA, are errors; they
//! are never ignored.

mod adapter;
mod batch;
mod begin;
mod config;
mod directory;
pub mod durable;
mod error;
pub mod finetune;
pub mod metrics;
mod parameters;
mod peft;
mod targets;
mod tensor_file;

pub use adapter::Adapter;
pub use batch::AdapterBatch;
pub use config::{LoraConfig, SiteShape, Targets};
pub use error::{Error, Result};
pub use finetune::{
    Evaluation, Event, Example, Outcome, Schedule, StepReport, SummaryVectors, TrainConfig, Trainer, evaluate,
};
pub use tensor_file::StoredType;

//! Factored LoRA adapters for `lloco-decoder`: PEFT files in and out, several adapters in a batch, finetuning.

mod adapter;
mod batch;
mod config;
mod directory;
mod error;
mod finetune;
mod parameters;
mod peft;
mod targets;
mod tensor_file;

pub use adapter::Adapter;
pub use batch::AdapterBatch;
pub use config::{LoraConfig, SiteShape, Targets};
pub use error::{Error, Result};
pub use finetune::{
    AdamW, BatchGradients, Dropout, Evaluation, Event, Example, NamedGradients, Outcome, Schedule, Scored, StepReport,
    SummaryVectors, TrainConfig, Trainer, batch_gradients, cross_entropy, evaluate,
};
pub use tensor_file::StoredType;

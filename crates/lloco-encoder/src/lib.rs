//! The context encoder of LLoCO: a long document becomes a short softprompt.
//!
//! [`AutoCompressor`] reads a document segment by segment. Behind each segment stand
//! `summary_length` summary tokens; their last hidden states are the segment's *summary vectors*. The
//! next segment is read behind all summary vectors so far, the *softprompt*. With segments of 1,536 tokens
//! and 50 summary tokens the softprompt has 30 times fewer positions than the text.
//!
//! ```no_run
//! use std::sync::Arc;
//! use lloco_decoder::{Checkpoint, Decoder, WeightType, burn::tensor::Device};
//! use lloco_encoder::{AutoCompressor, ContextEncoder, EncoderOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::open("models/autocompressor")?;
//! let decoder = Arc::new(Decoder::load(&checkpoint, WeightType::Auto, &Device::default())?);
//! let encoder = AutoCompressor::load(&checkpoint, decoder, &EncoderOptions::default())?;
//!
//! let ids = checkpoint.tokenizer()?.encode("A very long meeting transcript ...")?;
//! let softprompt = encoder.encode(&ids)?; // [segments * 50, hidden]
//! lloco_encoder::softprompt::save("meeting.safetensors", softprompt)?;
//! # Ok(())
//! # }
//! ```
//!
//! The encoder takes no domain adapter, by type: summary vectors never depend on one, so one stored
//! softprompt serves every adapter.
//!
//! Sources: AutoCompressor, arXiv 2305.14788; LLoCO, arXiv 2404.07979.

mod compressor;
mod config;
mod connector;
mod context;
mod error;
mod growing;
mod pooled;
pub mod softprompt;
mod trained;
pub mod training;
mod tuned;
mod tuning;
mod weights;
mod windows;

pub use compressor::AutoCompressor;
pub use config::{EncoderConfig, EncoderOptions};
pub use context::{ContextEncoder, Encoding, Layout, Training};
pub use error::{Error, Result};
pub use pooled::{Pooled, PooledConfig};
pub use trained::{Compressor, CompressorConfig, Mode, Reader, open};
pub use training::{
    CompressorStep, CompressorTrainer, Corpus, Curriculum, Evaluation, Losses, Sample, Stage, TrainingEvent,
    TrainingOutcome, Wording,
};
pub use tuning::Tuning;

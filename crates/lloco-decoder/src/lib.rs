//! A LLaMA-family language model on [burn]: read a checkpoint, feed it text and embeddings, generate.
//!
//! The crate knows nothing of summaries or documents, nor where adapters come from. It offers two seams to those who do:
//! a [`Prompt`] mixes token ids with embedding rows, so any soft prompt fits; a [`LinearAdapter`]
//! may add a term to every linear projection. [`low_rank`] and [`dropout`] are the operations that such terms are made of.
//!
//! ```no_run
//! use lloco_decoder::{Checkpoint, Decoder, GenerateConfig, NoAdapter, Prompt, WeightType};
//! use lloco_decoder::burn::tensor::Device;
//!
//! # fn main() -> lloco_decoder::Result<()> {
//! let checkpoint = Checkpoint::open("models/SmolLM2-135M-Instruct")?;
//! let tokenizer = checkpoint.tokenizer()?;
//! let decoder = Decoder::load(&checkpoint, WeightType::Auto, &Device::default())?;
//!
//! let prompt = Prompt::new().text(&tokenizer.encode("The capital of France is")?);
//! for token in decoder.generate(&prompt, &GenerateConfig::greedy(16), NoAdapter)? {
//!     let _id: u32 = token?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | noun | meaning |
//! |---|---|
//! | [`Checkpoint`] | weights on disk: safetensors (one file or sharded) or GGUF, memory-mapped |
//! | [`DecoderConfig`] | the architecture, read from the hub's `config.json` |
//! | [`Decoder`] | the frozen transformer on a device |
//! | [`KvCache`] | keys and values of the positions read so far |
//! | [`Prompt`] | what the model reads: token ids and embedding rows, in order |
//! | [`Packing`] | unequal sequences in one pass, and questions that share a beginning |
//! | [`Generation`] | an iterator over the tokens that follow a prompt |
//!
//! Features make backends available (`flex` is the default CPU one, `cuda`, `wgpu`, `vulkan`,
//! `metal`, `ndarray`); a [`Device`](burn::tensor::Device) chooses at run time.
//!
//! Sister crates: `lloco-lora` fills the adapter seam, `lloco-encoder` compresses long documents,
//! `lloco-retrieval` finds passages, `lloco-core` joins them.

pub use burn;

mod adapter;
mod at_once;
mod attention;
mod blockwise;
mod cache;
mod chat;
mod checkpoint;
mod config;
mod decoder;
mod dropout;
mod error;
mod generate;
pub mod gguf;
#[cfg(feature = "flex")]
mod kernels;
mod layer;
mod linear;
mod mapping;
#[doc(hidden)]
pub mod measured;
mod memory;
mod norm;
mod operations;
mod ops;
mod packing;
mod pass;
mod precision;
mod prompt;
mod rope;
mod sampling;
mod spilled;
mod tokenizer;
mod weight;

pub use adapter::{LinearAdapter, NoAdapter, Projection, SavedModule, Site};
pub use at_once::backward;
pub use cache::KvCache;
pub use chat::{ChatTemplate, Message};
pub use checkpoint::{Checkpoint, WeightType};
pub use config::{DecoderConfig, RopeScaling};
pub use decoder::Decoder;
pub use dropout::{dropout, mix};
pub use error::{Error, Result};
pub use generate::{GenerateConfig, Generation};
pub use memory::{release_memory, zeros};
pub use ops::low_rank;
pub use packing::Packing;
pub use pass::{Pass, Rows};
pub use prompt::{Part, Prompt};
pub use sampling::{Sampler, Sampling};
pub use tokenizer::{TextStream, Tokenizer};

//! Learn long documents once, offline; ask about them cheaply, online. LLoCO (arXiv 2404.07979) whole.
//!
//! ```no_run
//! use lloco_core::{FinetuneConfig, Lloco};
//!
//! # fn main() -> lloco_core::Result<()> {
//! let compressor = "models/smollm2-135m-lloco"; // of this project's repository, for the default model
//! let lloco = Lloco::builder().store("library").compressor(compressor).build()?;
//! lloco.add_files("meetings", "transcripts/**/*.txt")?;
//! lloco.finetune("meetings", &FinetuneConfig::new("qa.jsonl"))?;
//! let answer = lloco.ask("Who decided on the budget?")?;
//! println!("{}\n{:#?}", answer.text, answer.sources);
//! # Ok(())
//! # }
//! ```
//!
//! | noun | meaning |
//! |---|---|
//! | document | a text with an id; it belongs to a *group* |
//! | summary vectors | what the encoder leaves of a segment; all of a document's are its *softprompt* |
//! | adapter | a group's LoRA weights, trained to answer from its documents' summaries |
//! | source | a document that an answer rests on, with its best passage |
//!
//! | module | what it holds |
//! |---|---|
//! | [`Lloco`] | the verbs: add, finetune, ask, append, remove; self-study, evaluate |
//! | [`store`] | where documents, summaries and adapters are kept |
//! | [`reader`] | text of files: plain, Markdown, HTML, PDF, DOCX |
//! | [`dataset`] | questions and answers as JSON Lines |
//! | [`eval`] | scores of answers; the control table |
//! | [`source`] | where models come from |
//!
//! Features make devices available (`flex`, the default CPU backend; `cuda`, `wgpu`, `vulkan`, `metal`, `ndarray`);
//! [`device`] finds one by name. `hub` adds the Hugging Face hub as a source of models, `readers` the text of HTML, PDF and DOCX
//! files, `bm25` keyword search.
//!
//! The crates below are useful alone: `lloco-decoder` (the language model), `lloco-lora` (adapters), `lloco-encoder`
//! (compression), `lloco-retrieval` (passages and search).

mod answer;
mod builder;
mod compress;
pub mod dataset;
mod device;
mod digest;
mod error;
pub mod eval;
mod event;
mod files;
mod finetune;
mod ingest;
mod lloco;
mod members;
mod prompt;
mod random;
pub mod reader;
mod reading;
mod search;
pub mod source;
pub mod store;
mod study;

pub use answer::{Answer, AnswerStream, AskOptions, Source, Timings, Usage};
pub use builder::LlocoBuilder;
pub use device::device;
pub use digest::Digest;
pub use error::{Attempt, Error, Result, Route};
pub use event::Event;
pub use finetune::{FinetuneConfig, Finetuned};
pub use ingest::Added;
pub use lloco::Lloco;
pub use prompt::Prompts;
pub use search::Search;
pub use source::{ModelSource, Progress, Resolver};
pub use study::{SelfStudied, SelfStudyConfig};

pub use burn::tensor::Device;
pub use lloco_decoder::{
    Checkpoint, Decoder, GenerateConfig, KvCache, Message, NoAdapter, Pass, Prompt, Sampling, Tokenizer, WeightType,
};
pub use lloco_encoder::{
    AutoCompressor, Compressor, ContextEncoder, EncoderConfig, EncoderOptions, Pooled, Training, open as open_encoder,
    softprompt, training,
};
pub use lloco_lora::{Adapter, LoraConfig, TrainConfig};

//! Finds the passages of texts that fit a question: by meaning, by words, or by both.
//!
//! ```no_run
//! use lloco_retrieval::burn::tensor::Device;
//! use lloco_retrieval::{DenseIndex, DenseRetriever, Embedder, PassageConfig, PassageSplitter, Retriever, RowType};
//!
//! # fn main() -> lloco_retrieval::Result<()> {
//! let embedder = Embedder::load("models/all-MiniLM-L6-v2", &Device::default())?;
//! let text = std::fs::read_to_string("log.txt").unwrap_or_default();
//! let passages = PassageSplitter::new(&embedder, PassageConfig::default())?.split(&text)?;
//! let texts: Vec<&str> = passages.iter().map(|passage| &text[passage.range.clone()]).collect();
//!
//! let mut index = DenseIndex::new(embedder.dim(), embedder.fingerprint(), RowType::F16)?;
//! let keys: Vec<u64> = (0..texts.len() as u64).collect();
//! index.add(&keys, &embedder.embed_passages(&texts)?)?;
//! let retriever = DenseRetriever { embedder: &embedder, index: &index, candidates: None };
//! for hit in retriever.retrieve("Where does the pump stand?", 3, None)? {
//!     println!("{:.3} {}", hit.score, texts[hit.key as usize]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | noun | meaning |
//! |---|---|
//! | passage | a stretch of a text, about 256 tokens, that is found as one |
//! | embedder | a BERT-family model that turns a text into a vector |
//! | key | the number under which a passage was added; its meaning is the caller's |
//! | hit | a key that was found, with a score |
//!
//! | step | type |
//! |---|---|
//! | cut texts at sentence ends | [`PassageSplitter`] |
//! | passages and questions to vectors | [`Embedder`]: MiniLM, Contriever, e5, bge and their kin |
//! | nearest vectors, exactly or nearly | [`DenseIndex`], [`DenseRetriever`] |
//! | shared words, BM25 | `KeywordIndex`, feature `bm25` |
//! | several rankings to one | [`HybridRetriever`], [`reciprocal_rank_fusion`] |
//! | from passages to documents | [`rank_documents`] |
//!
//! Indexes take additions and removals without being built again, and lie in files that carry a format version and
//! checksums. A [`Filter`] restricts a search to some keys, for instance those of a group.
//!
//! # Untrusted input
//! Texts and questions may hold anything: none is parsed as a query language, and time and memory stay in proportion to
//! their length. Files are read with suspicion: a damaged one is an error that names it. Where the search library under
//! `KeywordIndex` panics over a forged file, that is caught and becomes [`Error::Damaged`].
//!
//! # What it is not
//! No server and no graph of neighbours: a search compares the query with every row, or with every row's signs, at the
//! speed of memory. See `docs/results/retrieval.md` for speed and quality.
//!
//! # Features
//! `flex` (default, pure-Rust CPU), `cuda`, `wgpu`, `vulkan`, `metal` and `ndarray` make devices available; `bm25` adds
//! keyword search.

mod batch;
mod bert;
mod bert_config;
mod config;
mod cpu;
mod dense;
mod embedder;
mod embeddings;
mod error;
mod fields;
mod fusion;
#[cfg(feature = "bm25")]
mod keyword;
mod passages;
mod raw;
mod retriever;
mod sentences;
mod tokenizer;
mod topk;
mod weights;

pub use burn;

pub use bert_config::{Activation, BertConfig};
pub use config::{EmbedderConfig, Pooling};
pub use dense::{DenseIndex, RowType};
pub use embedder::{Embedder, Progress};
pub use embeddings::Embeddings;
pub use error::{Error, Result};
pub use fusion::{rank_documents, reciprocal_rank_fusion};
#[cfg(feature = "bm25")]
pub use keyword::KeywordIndex;
pub use passages::{Passage, PassageConfig, PassageSplitter};
pub use retriever::{DenseRetriever, Filter, Hit, HybridRetriever, Retriever};

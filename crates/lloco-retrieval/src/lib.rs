//! Under construction.
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

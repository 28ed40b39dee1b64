//! The facade: one type, one verb a phase.

use std::{
    fmt,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use lloco_encoder::{ContextEncoder, Training};
use lloco_retrieval::Embedder;

use crate::{
    Result,
    builder::LlocoBuilder,
    event::Observer,
    prompt::Prompts,
    search::Finder,
    store::{EncoderInfo, LocalStore, Pending, Shard, Store},
};

/// A library of documents that were learned offline and can be asked about cheaply.
///
/// | phase | verb |
/// |---|---|
/// | offline: split, embed, compress, store | [`add_files`](Self::add_files), [`add`](Self::add) |
/// | offline: after a change of model | [`reencode`](Self::reencode) |
/// | offline: questions where there are none | [`self_study`](Self::self_study) |
/// | offline: one adapter a group | [`finetune`](Self::finetune) |
/// | afterwards: is it memory? | [`evaluate`](Self::evaluate) |
/// | online: retrieve, load, decode | [`ask`](Self::ask), [`ask_stream`](Self::ask_stream) |
///
/// The offline verbs can be repeated and interrupted at any time; they never do work twice.
pub struct Lloco {
    pub(crate) store: LocalStore,
    pub(crate) encoder: Box<dyn ContextEncoder>,
    /// The encoder as the store knows it.
    pub(crate) info: EncoderInfo,
    pub(crate) embedder: Embedder,
    pub(crate) prompts: Prompts,
    pub(crate) search: RwLock<Finder>,
    /// The share of what is added that is compressed here.
    pub(crate) shard: Shard,
    /// Bytes of the longest text that is taken.
    pub(crate) document_limit: u64,
    pub(crate) observer: Observer,
}

impl Lloco {
    /// Settings with their defaults.
    ///
    /// ```no_run
    /// use lloco_core::{FinetuneConfig, Lloco};
    ///
    /// # fn main() -> lloco_core::Result<()> {
    /// let lloco = Lloco::builder().store("library").build()?;             // default model and embedder, CPU
    /// lloco.add_files("meetings", "transcripts/**/*.txt")?;               // offline: split, embed, compress, store
    /// lloco.finetune("meetings", &FinetuneConfig::new("qa.jsonl"))?;      // offline: one adapter for the group
    /// let answer = lloco.ask("Who decided on the budget?")?;              // online: retrieve, load, decode
    /// println!("{}\n{:#?}", answer.text, answer.sources);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> LlocoBuilder {
        LlocoBuilder::default()
    }

    /// The store: documents, groups, adapter versions, verification.
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// The encoder, which holds the language model.
    pub fn encoder(&self) -> &dyn ContextEncoder {
        &*self.encoder
    }

    /// The encoder as the store knows it.
    pub fn encoder_info(&self) -> &EncoderInfo {
        &self.info
    }

    /// The embedder that finds documents.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// Whether the model's compressor was trained; if not, summaries say little by themselves.
    pub fn training(&self) -> Training {
        self.encoder.training()
    }

    /// Lengthens a document and compresses what is new; segments that are full already are kept as they are.
    ///
    /// # Errors
    /// When there is no such document, it becomes too long, or compressing or storing fails.
    pub fn append(&self, id: &str, tail: &str) -> Result<crate::Added> {
        if let Some(document) = self.store.document(id)? {
            self.check_length(id, Pending::of(&document).text_bytes + tail.len() as u64)?;
        }
        self.store.append(id, tail)?;
        self.add(&[])
    }

    /// Removes a document, its summary and its passages. False if there was none.
    ///
    /// # Errors
    /// When storing fails.
    pub fn remove(&self, id: &str) -> Result<bool> {
        let removed = self.store.remove(id)?;
        self.search_mut().update(&self.store, &self.embedder, &self.observer)?;
        Ok(removed)
    }

    pub(crate) fn search(&self) -> RwLockReadGuard<'_, Finder> {
        self.search.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn search_mut(&self) -> RwLockWriteGuard<'_, Finder> {
        self.search.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Lloco {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lloco").field("store", &self.store).field("encoder", &self.info).finish_non_exhaustive()
    }
}

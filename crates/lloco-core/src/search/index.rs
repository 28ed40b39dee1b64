//! The index files of a store, opened, or begun anew where there are none that can be used.

use std::path::PathBuf;

#[cfg(feature = "bm25")]
use lloco_retrieval::KeywordIndex;
use lloco_retrieval::{DenseIndex, Embedder, RowType};

use crate::{Result, store::LocalStore};

/// The dense index and its file.
pub(super) struct Dense {
    pub(super) index: DenseIndex,
    /// `None` for a store that is opened read-only: the index then stays in memory.
    file: Option<PathBuf>,
    /// Whether the index has been read from the file, or written to it.
    saved: bool,
}

impl Dense {
    pub(super) fn open(store: &LocalStore, embedder: &Embedder) -> Result<Self> {
        let fingerprint = embedder.fingerprint();
        let name = index_name("dense", embedder) + ".index";
        let stored = store.index(&name)?.and_then(|path| match DenseIndex::open(&path, fingerprint) {
            Ok(index) => Some(index),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "building the dense index again");
                None
            }
        });
        let file = match store.is_read_only() {
            true => None,
            false => Some(store.index_file(&name)?),
        };
        let saved = stored.is_some();
        let index = match stored {
            Some(index) => index,
            None => DenseIndex::new(embedder.dim(), fingerprint, RowType::F16)?,
        };
        Ok(Self { index, file, saved })
    }

    pub(super) fn save(&mut self) -> Result<()> {
        match &self.file {
            Some(_) if self.saved => self.index.commit()?,
            Some(file) => self.index.save(file)?,
            None => {}
        }
        self.saved = true;
        Ok(())
    }
}

/// The store's keyword index, or a new one; for a store opened read-only the new one stays in memory.
#[cfg(feature = "bm25")]
pub(super) fn open_keyword(store: &LocalStore, embedder: &Embedder) -> Result<KeywordIndex> {
    let name = index_name("keyword", embedder);
    if let Some(path) = store.index(&name)? {
        match KeywordIndex::open(&path) {
            Ok(index) => return Ok(index),
            Err(error) => tracing::warn!(path = %path.display(), %error, "building the keyword index again"),
        }
    }
    Ok(match store.is_read_only() {
        true => KeywordIndex::in_memory()?,
        false => KeywordIndex::create(store.index_file(&name)?)?,
    })
}

/// Passages are cut by the embedder's tokens, so every embedder has indexes of its own.
fn index_name(kind: &str, embedder: &Embedder) -> String {
    let fingerprint: String = embedder.fingerprint().chars().take(16).collect();
    format!("{kind}-{fingerprint}")
}

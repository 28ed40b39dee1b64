//! Finding documents: passages of the store's texts in an exact dense index.
//!
//! The index is derived data. A passage's key is 44 bits of its text's digest and 20 bits of its number, so the
//! index says itself what it holds, and a lost or stale one is brought up to date from the store.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::PathBuf,
};

use lloco_retrieval::{DenseIndex, Embedder, Filter, Hit, PassageConfig, PassageSplitter, RowType, rank_documents};

use crate::{
    Digest, Error, Event, Result,
    event::Observer,
    store::{Document, LocalStore, Store},
};

/// Bits of a key that number passages.
const PASSAGE_BITS: u32 = 20;
/// Texts whose passages are embedded and saved together.
const BATCH: usize = 64;

/// The passages of a store.
pub(crate) struct Search {
    index: DenseIndex,
    /// `None` for a store that is opened read-only: the index then stays in memory.
    file: Option<PathBuf>,
}

/// A document that was found, with the passage that fits best.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) document: Document,
    pub(crate) score: f32,
    /// Number of the best passage.
    pub(crate) passage: usize,
}

impl Search {
    /// Opens the store's index, or begins an empty one if there is none of this embedder.
    pub(crate) fn open(store: &LocalStore, embedder: &Embedder) -> Result<Self> {
        let fingerprint = embedder.fingerprint();
        let name = format!("dense-{}.index", fingerprint.chars().take(16).collect::<String>());
        let index = match store.index(&name)? {
            Some(path) => match DenseIndex::open(&path, fingerprint) {
                Ok(index) => index,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "building the index again");
                    DenseIndex::new(embedder.dim(), fingerprint, RowType::F16)?
                }
            },
            None => DenseIndex::new(embedder.dim(), fingerprint, RowType::F16)?,
        };
        let file = match store.is_read_only() {
            true => None,
            false => Some(store.index_file(&name)?),
        };
        Ok(Self { index, file })
    }

    /// Brings the index up to date with the store's documents; returns the passages embedded.
    pub(crate) fn update(&mut self, store: &LocalStore, embedder: &Embedder, observer: &Observer) -> Result<usize> {
        let texts: HashMap<u64, Digest> =
            store.documents(None)?.into_iter().map(|document| (stem(&document.text), document.text)).collect();
        let present: HashSet<u64> = self.index.keys().map(|key| key >> PASSAGE_BITS).collect();
        let gone: Vec<u64> = self.index.keys().filter(|key| !texts.contains_key(&(key >> PASSAGE_BITS))).collect();
        let missing: Vec<(&u64, &Digest)> = texts.iter().filter(|(stem, _)| !present.contains(stem)).collect();
        if gone.is_empty() && missing.is_empty() {
            return Ok(0);
        }
        self.index.remove(&gone);
        let splitter = PassageSplitter::new(embedder, PassageConfig::default())?;
        let mut embedded = 0;
        for batch in missing.chunks(BATCH) {
            let mut keys = Vec::new();
            let mut passages = Vec::new();
            for (stem, digest) in batch {
                let text = store.text(digest)?;
                for (number, passage) in (0..1 << PASSAGE_BITS).zip(splitter.split(&text)?) {
                    keys.push(*stem << PASSAGE_BITS | number);
                    passages.push(text.get(passage.range).unwrap_or_default().to_owned());
                }
            }
            let total = passages.len();
            let mut flow = Ok(());
            let prefix = &embedder.config().passage_prefix;
            let vectors = embedder.embed_observed(prefix, &passages, &mut |progress| {
                if flow.is_ok() {
                    flow = observer.tell(&Event::Embedded { done: progress.done, total });
                }
            })?;
            self.index.add(&keys, &vectors)?;
            embedded += total;
            self.save()?;
            flow?;
        }
        if missing.is_empty() {
            self.save()?;
        }
        Ok(embedded)
    }

    /// The best documents for a question, best first.
    pub(crate) fn find(
        &self,
        store: &LocalStore,
        embedder: &Embedder,
        question: &str,
        group: Option<&str>,
        k: usize,
    ) -> Result<Vec<Found>> {
        let documents: HashMap<u64, Document> = store
            .documents(group)?
            .into_iter()
            .filter(|document| document.summary.is_some())
            .map(|document| (stem(&document.text), document))
            .collect();
        let nothing = || Error::NothingToAsk { group: group.map(str::to_owned) };
        if documents.is_empty() {
            return Err(nothing());
        }
        let query = embedder.embed_query(question)?;
        let in_group = |key: u64| documents.contains_key(&(key >> PASSAGE_BITS));
        let filter: Filter<'_> = &in_group;
        // Several of the best passages may be of one document.
        let passages = self.index.search_filtered(&query, (k * 16).max(64), Some(filter))?;
        let ranked = rank_documents(&passages, k, |key| key >> PASSAGE_BITS);
        let found = ranked.into_iter().filter_map(|Hit { key, score }| {
            let best = passages.iter().find(|hit| hit.key >> PASSAGE_BITS == key)?;
            let passage = (best.key & ((1 << PASSAGE_BITS) - 1)) as usize;
            Some(Found { document: documents.get(&key)?.clone(), score, passage })
        });
        let found: Vec<Found> = found.collect();
        if found.is_empty() { Err(nothing()) } else { Ok(found) }
    }

    fn save(&mut self) -> Result<()> {
        match &self.file {
            Some(file) => Ok(self.index.save(file)?),
            None => Ok(()),
        }
    }
}

/// Byte range of a passage in its text.
pub(crate) fn passage_range(embedder: &Embedder, text: &str, number: usize) -> Result<Range<usize>> {
    let splitter = PassageSplitter::new(embedder, PassageConfig::default())?;
    let passages = splitter.split(text)?;
    Ok(passages.get(number).map_or(0..text.len(), |passage| passage.range.clone()))
}

/// The part of a text's digest that its passages' keys carry.
fn stem(text: &Digest) -> u64 {
    let head = text.bytes().first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    head >> PASSAGE_BITS
}

//! Finding documents: passages of the store's texts, by what they mean and by the words in them.
//!
//! The indexes are derived data. A passage's key is 44 bits of its text's digest and 20 bits of its number, so an index
//! says itself what it holds, and a lost, damaged or stale one is brought up to date from the store.

mod find;
mod index;
mod listing;
mod ranges;

use std::collections::{HashMap, HashSet};

use lloco_retrieval::Embedder;
#[cfg(feature = "bm25")]
use lloco_retrieval::KeywordIndex;

use crate::{
    Digest, Event, Result,
    event::Observer,
    store::{LocalStore, Store},
};
pub(crate) use find::{Found, keep_within};
use index::Dense;
#[cfg(feature = "bm25")]
use index::open_keyword;
use listing::Listing;
use ranges::Ranges;

/// How the documents that fit a question are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "bm25"), derive(Default))]
#[non_exhaustive]
pub enum Search {
    /// By meaning: the passage whose vector lies nearest to the question's.
    #[cfg_attr(not(feature = "bm25"), default)]
    Dense,
    /// By words: BM25. No passage is embedded. A question that shares no word with a document finds nothing.
    #[cfg(feature = "bm25")]
    Keyword,
    /// Both rankings joined by reciprocal-rank fusion. The default where the feature `bm25` is on.
    #[cfg(feature = "bm25")]
    Hybrid,
}

#[cfg(feature = "bm25")]
#[allow(clippy::derivable_impls, reason = "the default depends on the feature")]
impl Default for Search {
    fn default() -> Self {
        Self::Hybrid
    }
}

/// Bits of a key that number passages.
const PASSAGE_BITS: u32 = 20;
/// Texts whose passages are indexed and saved together.
const BATCH: usize = 64;

/// The indexes over a store's passages, and what they are asked for.
pub(crate) struct Finder {
    #[cfg_attr(not(feature = "bm25"), allow(dead_code, reason = "there is one way only"))]
    search: Search,
    /// Vectors that a question is compared with, or `None` for all.
    candidates: Option<usize>,
    dense: Option<Dense>,
    #[cfg(feature = "bm25")]
    keyword: Option<KeywordIndex>,
    /// The store's revision that indexes and listing were last compared with.
    revision: Option<u64>,
    listing: Listing,
    ranges: Ranges,
}

impl Finder {
    /// Opens the store's indexes, or begins empty ones where there are none of this embedder.
    pub(crate) fn open(
        search: Search,
        candidates: Option<usize>,
        store: &LocalStore,
        embedder: &Embedder,
    ) -> Result<Self> {
        let mut finder = Self {
            search,
            candidates,
            dense: None,
            #[cfg(feature = "bm25")]
            keyword: None,
            revision: None,
            listing: Listing::default(),
            ranges: Ranges::default(),
        };
        finder.open_indexes(store, embedder)?;
        Ok(finder)
    }

    fn open_indexes(&mut self, store: &LocalStore, embedder: &Embedder) -> Result<()> {
        #[cfg(feature = "bm25")]
        if self.search != Search::Dense {
            self.keyword = Some(open_keyword(store, embedder)?);
        }
        #[cfg(feature = "bm25")]
        if self.search == Search::Keyword {
            return Ok(());
        }
        self.dense = Some(Dense::open(store, embedder)?);
        Ok(())
    }

    /// Whether documents changed since the indexes were last brought up to date.
    pub(crate) fn is_stale(&self, store: &LocalStore) -> Result<bool> {
        Ok(self.revision != Some(store.revision()?))
    }

    /// Brings the indexes up to date with the store's documents; returns the passages added.
    pub(crate) fn update(&mut self, store: &LocalStore, embedder: &Embedder, observer: &Observer) -> Result<usize> {
        if !self.is_stale(store)? {
            return Ok(0);
        }
        if store.is_read_only() && self.revision.is_some() {
            // Whoever writes the store has brought its files up to date.
            self.open_indexes(store, embedder)?;
        }
        let (revision, documents) = store.listed()?;
        let all: HashSet<u64> = documents.iter().map(|document| stem(&document.text)).collect();
        let compressed = documents.iter().filter(|document| document.compressed);
        let wanted: HashMap<u64, Digest> = compressed.map(|document| (stem(&document.text), document.text)).collect();
        let listing = Listing::of(documents);

        let mut missing: Vec<(u64, Digest)> = Vec::new();
        let mut held = Vec::new();
        for keys in self.keys()? {
            let gone: Vec<u64> = keys.iter().copied().filter(|key| !all.contains(&(key >> PASSAGE_BITS))).collect();
            let stems: HashSet<u64> = keys.iter().map(|key| key >> PASSAGE_BITS).collect();
            missing.extend(wanted.iter().filter(|(stem, _)| !stems.contains(stem)).map(|(stem, text)| (*stem, *text)));
            held.push((stems, gone));
        }
        missing.sort_unstable_by_key(|(stem, _)| *stem);
        missing.dedup_by_key(|(stem, _)| *stem);
        #[cfg(feature = "bm25")]
        if store.is_read_only()
            && self.keyword.as_ref().is_some_and(KeywordIndex::is_on_disk)
            && (!missing.is_empty() || held.iter().any(|(_, gone)| !gone.is_empty()))
        {
            // Changes must not reach the files of a store opened read-only.
            self.keyword = Some(KeywordIndex::in_memory()?);
            let in_memory = (HashSet::new(), Vec::new());
            held.splice(..1, [in_memory]);
            missing = wanted.into_iter().collect();
        }
        self.remove(&held)?;

        let mut added = 0;
        for batch in missing.chunks(BATCH) {
            let mut passages = Vec::new();
            for (stem, digest) in batch {
                let text = store.text(digest)?;
                for (number, range) in (0..1 << PASSAGE_BITS).zip(self.ranges.of(embedder, digest, &text)?.iter()) {
                    let passage = text.get(range.clone()).unwrap_or_default().to_owned();
                    passages.push((*stem << PASSAGE_BITS | number, passage));
                }
            }
            self.add(&passages, &held, embedder, observer)?;
            added += passages.len();
        }
        (self.listing, self.revision) = (listing, Some(revision));
        Ok(added)
    }

    /// The keys of each index, in the order in which [`remove`](Self::remove) and [`add`](Self::add) go through them.
    fn keys(&self) -> Result<Vec<Vec<u64>>> {
        let mut keys = Vec::new();
        #[cfg(feature = "bm25")]
        if let Some(keyword) = &self.keyword {
            keys.push(keyword.keys()?);
        }
        keys.extend(self.dense.as_ref().map(|dense| dense.index.keys().collect()));
        Ok(keys)
    }

    fn remove(&mut self, held: &[(HashSet<u64>, Vec<u64>)]) -> Result<()> {
        let mut held = held.iter().map(|(_, gone)| gone);
        #[cfg(feature = "bm25")]
        if let (Some(keyword), Some(gone)) = (&mut self.keyword, held.next()) {
            keyword.update::<&str>(gone, [])?;
        }
        if let (Some(dense), Some(gone)) = (&mut self.dense, held.next())
            && !gone.is_empty()
        {
            dense.index.remove(gone);
            dense.save()?;
        }
        Ok(())
    }

    /// Adds passages to each index that lacks their texts.
    fn add(
        &mut self,
        passages: &[(u64, String)],
        held: &[(HashSet<u64>, Vec<u64>)],
        embedder: &Embedder,
        observer: &Observer,
    ) -> Result<()> {
        let mut held = held.iter();
        let mut lacking = || {
            let stems = held.next().map(|(stems, _)| stems);
            let lacks = |key: u64| stems.is_none_or(|stems| !stems.contains(&(key >> PASSAGE_BITS)));
            passages.iter().filter(|(key, _)| lacks(*key)).map(|(key, text)| (*key, text.as_str())).collect::<Vec<_>>()
        };
        #[cfg(feature = "bm25")]
        if let Some(keyword) = &mut self.keyword {
            keyword.update(&[], lacking())?;
        }
        if let Some(dense) = &mut self.dense {
            let (keys, texts): (Vec<u64>, Vec<&str>) = lacking().into_iter().unzip();
            let total = texts.len();
            let mut flow = Ok(());
            let prefix = &embedder.config().passage_prefix;
            let vectors = embedder.embed_observed(prefix, &texts, &mut |progress| {
                if flow.is_ok() {
                    flow = observer.tell(&Event::Embedded { done: progress.done, total });
                }
            })?;
            dense.index.add(&keys, &vectors)?;
            dense.save()?;
            flow?;
        }
        Ok(())
    }
}

/// The part of a text's digest that its passages' keys carry.
fn stem(text: &Digest) -> u64 {
    let head = text.bytes().first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    head >> PASSAGE_BITS
}

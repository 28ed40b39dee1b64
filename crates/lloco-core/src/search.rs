//! Finding documents: passages of the store's texts, by what they mean and by the words in them.
//!
//! The indexes are derived data. A passage's key is 44 bits of its text's digest and 20 bits of its number, so an index
//! says itself what it holds, and a lost, damaged or stale one is brought up to date from the store.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::PathBuf,
};

#[cfg(feature = "bm25")]
use lloco_retrieval::KeywordIndex;
use lloco_retrieval::{
    DenseIndex, DenseRetriever, Embedder, Filter, HybridRetriever, PassageConfig, PassageSplitter, Retriever, RowType,
    rank_documents,
};

use crate::{
    Digest, Error, Event, Result,
    event::Observer,
    store::{Document, LocalStore, Store},
};

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

/// The indexes over a store's passages.
pub(crate) struct Finder {
    #[cfg_attr(not(feature = "bm25"), allow(dead_code, reason = "there is one way only"))]
    search: Search,
    dense: Option<Dense>,
    #[cfg(feature = "bm25")]
    keyword: Option<KeywordIndex>,
    /// The store's revision that the indexes were last compared with.
    revision: Option<u64>,
}

/// The dense index and its file.
struct Dense {
    index: DenseIndex,
    /// `None` for a store that is opened read-only: the index then stays in memory.
    file: Option<PathBuf>,
    /// Whether the index has been read from the file, or written to it.
    saved: bool,
}

/// A document that was found, with the passage that fits best.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) document: Document,
    pub(crate) score: f32,
    /// Number of the best passage.
    pub(crate) passage: usize,
}

impl Finder {
    /// Opens the store's indexes, or begins empty ones where there are none of this embedder.
    pub(crate) fn open(search: Search, store: &LocalStore, embedder: &Embedder) -> Result<Self> {
        let mut finder = Self {
            search,
            dense: None,
            #[cfg(feature = "bm25")]
            keyword: None,
            revision: None,
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
        let revision = store.revision()?;
        if self.revision == Some(revision) {
            return Ok(0);
        }
        if store.is_read_only() && self.revision.is_some() {
            // Whoever writes the store has brought its files up to date.
            self.open_indexes(store, embedder)?;
        }
        let documents = store.documents(None)?;
        let all: HashSet<u64> = documents.iter().map(|document| stem(&document.text)).collect();
        let compressed = documents.into_iter().filter(|document| document.summary.is_some());
        let wanted: HashMap<u64, Digest> = compressed.map(|document| (stem(&document.text), document.text)).collect();

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

        let splitter = PassageSplitter::new(embedder, PassageConfig::default())?;
        let mut added = 0;
        for batch in missing.chunks(BATCH) {
            let mut passages = Vec::new();
            for (stem, digest) in batch {
                let text = store.text(digest)?;
                for (number, passage) in (0..1 << PASSAGE_BITS).zip(splitter.split(&text)?) {
                    passages
                        .push((*stem << PASSAGE_BITS | number, text.get(passage.range).unwrap_or_default().to_owned()));
                }
            }
            self.add(&passages, &held, embedder, observer)?;
            added += passages.len();
        }
        self.revision = Some(revision);
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

    /// The best documents for a question, best first, all of one group: of `group`, or of the best document's.
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
        if documents.is_empty() {
            return Err(Error::NothingToAsk { group: group.map(str::to_owned) });
        }
        let in_group = |key: u64| documents.contains_key(&(key >> PASSAGE_BITS));
        // Several of the best passages may be of one document.
        let passages = self.retrieve(embedder, question, k.saturating_mul(16).max(64), Some(&in_group))?;
        let ranked = rank_documents(&passages, documents.len(), |key| key >> PASSAGE_BITS);
        let mut found: Vec<Found> = Vec::new();
        for hit in ranked {
            let best = passages.iter().find(|passage| passage.key >> PASSAGE_BITS == hit.key);
            let (Some(best), Some(document)) = (best, documents.get(&hit.key)) else { continue };
            // One adapter answers: keep to the best document's group.
            if found.len() < k && found.first().is_none_or(|first| first.document.group == document.group) {
                let passage = (best.key & ((1 << PASSAGE_BITS) - 1)) as usize;
                found.push(Found { document: document.clone(), score: hit.score, passage });
            }
        }
        if found.is_empty() { Err(Error::NothingFound { documents: documents.len() }) } else { Ok(found) }
    }

    fn retrieve(
        &self,
        embedder: &Embedder,
        question: &str,
        k: usize,
        filter: Option<Filter<'_>>,
    ) -> Result<Vec<lloco_retrieval::Hit>> {
        let dense = self.dense.as_ref().map(|dense| DenseRetriever { embedder, index: &dense.index });
        let mut retrievers: Vec<&dyn Retriever> = Vec::new();
        #[cfg(feature = "bm25")]
        retrievers.extend(self.keyword.as_ref().map(|keyword| keyword as &dyn Retriever));
        retrievers.extend(dense.as_ref().map(|dense| dense as &dyn Retriever));
        Ok(match retrievers[..] {
            [one] => one.retrieve(question, k, filter)?,
            _ => HybridRetriever { retrievers: &retrievers }.retrieve(question, k, filter)?,
        })
    }
}

impl Dense {
    fn open(store: &LocalStore, embedder: &Embedder) -> Result<Self> {
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

    fn save(&mut self) -> Result<()> {
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
fn open_keyword(store: &LocalStore, embedder: &Embedder) -> Result<KeywordIndex> {
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

/// Leaves the best document and as many of those behind it as fit into `budget` positions together.
pub(crate) fn keep_within(found: &mut Vec<Found>, budget: usize, positions: impl Fn(&Document) -> usize) {
    let mut taken = 0_usize;
    found.retain(|hit| {
        let more = positions(&hit.document);
        let fits = taken == 0 || taken.saturating_add(more) <= budget;
        taken += if fits { more.max(1) } else { 0 };
        fits
    });
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

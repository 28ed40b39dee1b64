//! From a question to passages, and from passages to documents.

use std::{collections::HashMap, ops::Range};

use lloco_retrieval::{DenseRetriever, Embedder, Filter, HybridRetriever, Retriever, rank_documents};

use super::{Finder, PASSAGE_BITS, stem};
use crate::{
    Digest, Error, Result,
    store::{Document, LocalStore, Store},
};

/// A document that was found, with the passage that fits best.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) document: Document,
    pub(crate) score: f32,
    /// Number of the best passage.
    pub(crate) passage: usize,
}

impl Finder {
    /// The best documents for a question, best first, all of one group: of `group`, or of the best document's.
    pub(crate) fn find(
        &self,
        store: &LocalStore,
        embedder: &Embedder,
        question: &str,
        group: Option<&str>,
        k: usize,
    ) -> Result<Vec<Found>> {
        let nothing = || Error::NothingToAsk { group: group.map(str::to_owned) };
        let asked = self.listing.asked(group).ok_or_else(nothing)?;
        let in_group = |key: u64| asked.holds(key >> PASSAGE_BITS);
        // Several of the best passages may be of one document.
        let passages = self.retrieve(embedder, question, k.saturating_mul(16).max(64), Some(&in_group))?;
        let mut found: Vec<Found> = Vec::new();
        for hit in rank_documents(&passages, passages.len(), |key| key >> PASSAGE_BITS) {
            let best = passages.iter().find(|passage| passage.key >> PASSAGE_BITS == hit.key);
            let Some(best) = best.filter(|_| found.len() < k) else { break };
            let passage = number(best.key);
            for id in asked.ids(hit.key) {
                // It may have changed since the listing was made.
                let document = store.document(id)?;
                let Some(document) = document.filter(|found| found.summary.is_some() && stem(&found.text) == hit.key)
                else {
                    continue;
                };
                // One adapter answers: keep to the best document's group. A text is read once.
                if found.first().is_none_or(|first| first.document.group == document.group) {
                    found.push(Found { document, score: hit.score, passage });
                    break;
                }
            }
        }
        if found.is_empty() { Err(Error::NothingFound { documents: asked.documents() }) } else { Ok(found) }
    }

    /// The best passage of each of some texts that has one: its score and number.
    pub(crate) fn best_passages(
        &self,
        embedder: &Embedder,
        question: &str,
        texts: impl IntoIterator<Item = Digest>,
    ) -> Result<HashMap<Digest, (f32, usize)>> {
        let texts: HashMap<u64, Digest> = texts.into_iter().map(|text| (stem(&text), text)).collect();
        let of_these = |key: u64| texts.contains_key(&(key >> PASSAGE_BITS));
        let mut best = HashMap::new();
        for hit in self.retrieve(embedder, question, texts.len() << PASSAGE_BITS, Some(&of_these))? {
            if let Some(text) = texts.get(&(hit.key >> PASSAGE_BITS)) {
                best.entry(*text).or_insert((hit.score, number(hit.key)));
            }
        }
        Ok(best)
    }

    /// Byte range of a passage in the text of this digest.
    pub(crate) fn passage(
        &self,
        embedder: &Embedder,
        digest: &Digest,
        text: &str,
        number: usize,
    ) -> Result<Range<usize>> {
        let passages = self.ranges.of(embedder, digest, text)?;
        Ok(passages.get(number).cloned().unwrap_or(0..text.len()))
    }

    fn retrieve(
        &self,
        embedder: &Embedder,
        question: &str,
        k: usize,
        filter: Option<Filter<'_>>,
    ) -> Result<Vec<lloco_retrieval::Hit>> {
        let candidates = self.candidates;
        let dense = self.dense.as_ref().map(|dense| DenseRetriever { embedder, index: &dense.index, candidates });
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

/// The number of a passage among those of its text.
fn number(key: u64) -> usize {
    (key & ((1 << PASSAGE_BITS) - 1)) as usize
}

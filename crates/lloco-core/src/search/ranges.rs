//! Where passages lie in their texts. Finding out tokenises the whole text, so the latest answers are remembered.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use lloco_retrieval::{Embedder, PassageConfig, PassageSplitter};

use crate::{Digest, Result};

/// Texts that are remembered at most.
const TEXTS: usize = 256;
/// Their passages at most, 16 bytes each, but for a single text that has more.
const PASSAGES: usize = 1 << 20;

/// The passages of one text, in order.
type Passages = Arc<[Range<usize>]>;

/// Byte ranges of the passages of some texts.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// The latest first.
    texts: Mutex<VecDeque<(Digest, Passages)>>,
}

impl Ranges {
    /// The passages of a text, in order.
    pub(super) fn of(&self, embedder: &Embedder, digest: &Digest, text: &str) -> Result<Passages> {
        if let Some(known) = self.known(digest) {
            return Ok(known);
        }
        let passages = PassageSplitter::new(embedder, PassageConfig::default())?.split(text)?;
        let ranges: Passages = passages.into_iter().map(|passage| passage.range).collect();
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.push_front((*digest, Arc::clone(&ranges)));
        let mut passages: usize = texts.iter().map(|(_, ranges)| ranges.len()).sum();
        while texts.len() > TEXTS || (passages > PASSAGES && texts.len() > 1) {
            passages -= texts.pop_back().map_or(0, |(_, ranges)| ranges.len());
        }
        Ok(ranges)
    }

    pub(super) fn known(&self, digest: &Digest) -> Option<Passages> {
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.iter().find(|(text, _)| text == digest).map(|(_, ranges)| Arc::clone(ranges))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_latest_texts_are_remembered() {
        let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lloco-retrieval/tests/data/tiny-bert");
        let embedder = Embedder::load(model, &crate::device::default_device()).unwrap();
        let ranges = Ranges::default();
        let text = |number: usize| format!("Text {number}. ").repeat(200);
        let of = |number: usize| (Digest::of(text(number).as_bytes()), text(number));
        let (first, contents) = of(0);
        let split = ranges.of(&embedder, &first, &contents).unwrap();
        assert!(split.len() > 1 && split.last().unwrap().end <= contents.len());
        // Nothing is split again: another text under the same digest goes unnoticed.
        assert_eq!(ranges.of(&embedder, &first, "").unwrap(), split);
        for number in 1..=TEXTS {
            let (digest, text) = of(number);
            ranges.of(&embedder, &digest, &text[..20]).unwrap();
        }
        assert!(ranges.known(&first).is_none() && ranges.known(&of(1).0).is_some());
    }
}

//! Which losses there are, and what each has found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The weight of each loss of a stage; a loss of weight 0 is not computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Losses {
    /// Cross entropy of all text positions while the encoder reads, across the borders of segments (AutoCompressor).
    pub next_token: f64,
    /// Cross entropy of the compressed text itself, read off its summary vectors.
    pub reconstruction: f64,
    /// Cross entropy of the text that follows the compressed text.
    pub continuation: f64,
    /// Cross entropy of answers to questions about the compressed text.
    pub answer: f64,
    /// Divergence from the same model reading the full text, on continuations and answers.
    pub kl: f64,
    /// The likeliest tokens that `kl` compares.
    pub kl_top: usize,
    /// `max(0, margin - (NLL behind another document's summaries - NLL behind the right ones))`, on answers and
    /// continuations, else reconstructions: whoever ignores the summaries pays.
    pub binding: f64,
    /// The margin of `binding`, in nats a token; a wider gap earns nothing.
    pub binding_margin: f64,
}

impl Default for Losses {
    fn default() -> Self {
        Self {
            next_token: 0.0,
            reconstruction: 0.0,
            continuation: 0.0,
            answer: 0.0,
            kl: 0.0,
            kl_top: 20,
            binding: 0.0,
            binding_margin: 0.5,
        }
    }
}

/// What the model says behind summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Reconstruction,
    Continuation,
    Answer,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Reconstruction, Self::Continuation, Self::Answer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reconstruction => "reconstruction",
            Self::Continuation => "continuation",
            Self::Answer => "answer",
        }
    }
}

impl Losses {
    pub(crate) fn weight(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Reconstruction => self.reconstruction,
            Kind::Continuation => self.continuation,
            Kind::Answer => self.answer,
        }
    }

    /// Whether this kind of reading is compared with the full text's.
    pub(crate) fn distils(&self, kind: Kind) -> bool {
        self.kl > 0.0 && kind != Kind::Reconstruction
    }

    /// Whether this kind of reading is bound to its document.
    pub(crate) fn binds(&self, kind: Kind) -> bool {
        let better = self.continuation > 0.0 || self.answer > 0.0 || self.kl > 0.0;
        self.binding > 0.0 && (kind != Kind::Reconstruction || !better)
    }

    /// Whether a kind is read at all.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        self.weight(kind) > 0.0 || self.distils(kind)
    }

    /// Whether anything is read behind summaries.
    pub(crate) fn reads(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.wants(kind))
    }
}

/// Means of losses by name, each from its own sum and count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally(BTreeMap<&'static str, (f64, usize)>);

impl Tally {
    pub(crate) fn add(&mut self, name: &'static str, sum: f64, count: usize) {
        let entry = self.0.entry(name).or_default();
        *entry = (entry.0 + sum, entry.1 + count);
    }

    pub(crate) fn mean(&self, name: &str) -> Option<f64> {
        self.0.get(name).filter(|entry| entry.1 > 0).map(|&(sum, count)| sum / count as f64)
    }

    #[cfg(test)]
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, |entry| entry.1)
    }

    pub(crate) fn means(&self) -> BTreeMap<String, f64> {
        self.0.keys().filter_map(|&name| Some((name.to_owned(), self.mean(name)?))).collect()
    }
}

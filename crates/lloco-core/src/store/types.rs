//! What goes in and out of a store, as plain data.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layout::check_name;
use super::precision::{Precision, SummaryRows};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

/// An encoder as the store knows it. Summaries of encoders that differ in any field never mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EncoderInfo {
    /// Stands for weights, tokenizer and configuration.
    pub fingerprint: String,
    /// Tokens in a full segment.
    pub segment_length: u32,
    /// Most summary vectors a segment gives.
    pub summary_length: u32,
    /// Width of a summary vector.
    pub hidden: u32,
    /// Whether the softprompt is all summaries (true) or only the last segment's (false).
    pub accumulate: bool,
    /// Whether a segment's summary depends on the segments before it.
    pub recurrent: bool,
    /// How summaries are stored.
    pub precision: Precision,
}

impl EncoderInfo {
    /// A recurrent, accumulating encoder whose summaries are stored as f16.
    #[must_use]
    pub fn new(fingerprint: impl Into<String>, segment_length: u32, summary_length: u32, hidden: u32) -> Self {
        Self {
            fingerprint: fingerprint.into(),
            segment_length,
            summary_length,
            hidden,
            accumulate: true,
            recurrent: true,
            precision: Precision::F16,
        }
    }

    /// Sets [`EncoderInfo::accumulate`].
    #[must_use]
    pub const fn accumulate(mut self, accumulate: bool) -> Self {
        self.accumulate = accumulate;
        self
    }

    /// Sets [`EncoderInfo::recurrent`].
    #[must_use]
    pub const fn recurrent(mut self, recurrent: bool) -> Self {
        self.recurrent = recurrent;
        self
    }

    /// Sets [`EncoderInfo::precision`].
    #[must_use]
    pub const fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The digest that stands for all fields.
    #[must_use]
    pub fn id(&self) -> Digest {
        let mut hasher = Hasher::labelled("lloco encoder 1");
        hasher.field(self.fingerprint.as_bytes());
        for number in [self.segment_length, self.summary_length, self.hidden] {
            hasher.number(number.into());
        }
        hasher.number(self.accumulate.into());
        hasher.number(self.recurrent.into());
        hasher.field(self.precision.name().as_bytes());
        hasher.finish()
    }

    /// The keys of a text's segments, each from the state before it and its token ids.
    pub(super) fn segment_keys(&self, segments: &[&[u32]]) -> Vec<Segment> {
        let id = self.id();
        let mut previous = None::<Digest>;
        let key = |tokens: &&[u32]| {
            let mut hasher = Hasher::labelled("lloco segment 1");
            hasher.update(id.bytes());
            hasher.update(previous.unwrap_or([0; 32].into()).bytes());
            tokens.iter().for_each(|token| hasher.update(&token.to_le_bytes()));
            let key = hasher.finish();
            let segment = Segment { key, previous, tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX) };
            previous = self.recurrent.then_some(key);
            segment
        };
        segments.iter().map(key).collect()
    }

    /// Whether the softprompt is the last segment's summary alone.
    pub(super) const fn keeps_last_only(&self) -> bool {
        self.recurrent && !self.accumulate
    }
}

impl fmt::Display for EncoderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, segment_length, summary_length, hidden, precision, .. } = self;
        let short: String = fingerprint.chars().take(16).collect();
        write!(f, "{short} ({segment_length} tokens to {summary_length} x {hidden}, {precision}")?;
        f.write_str(if self.accumulate { "" } else { ", last segment only" })?;
        f.write_str(if self.recurrent { ")" } else { ", independent segments)" })
    }
}

/// A segment of a text under an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Names the segment's summary.
    pub key: Digest,
    /// The segment whose state it continues.
    pub previous: Option<Digest>,
    /// Its length in tokens.
    pub tokens: u32,
}

/// A document to be stored.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NewDocument<'a> {
    /// Any text of 1 to 512 bytes without NUL.
    pub id: &'a str,
    /// Documents of a group share an adapter.
    pub group: &'a str,
    /// For people.
    pub title: &'a str,
    /// What the document says.
    pub text: &'a str,
}

impl<'a> NewDocument<'a> {
    /// A document in the group `default`, titled by its id.
    #[must_use]
    pub const fn new(id: &'a str, text: &'a str) -> Self {
        Self { id, group: "default", title: id, text }
    }

    /// Puts it into a group.
    #[must_use]
    pub const fn group(mut self, group: &'a str) -> Self {
        self.group = group;
        self
    }

    /// Titles it.
    #[must_use]
    pub const fn title(mut self, title: &'a str) -> Self {
        self.title = title;
        self
    }

    /// Whether a store takes it: the reason why not, before anything is written.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::EmptyText`].
    pub fn check(&self) -> Result<()> {
        check_name("document id", self.id)?;
        check_name("group", self.group)?;
        match self.text {
            "" => Err(Error::EmptyText { id: self.id.into() }),
            _ => Ok(()),
        }
    }
}

/// A document's summary, computed elsewhere as a whole.
#[derive(Debug, Clone, Copy)]
pub struct NewSummary<'a> {
    /// What [`Store::pending`](super::Store::pending) listed.
    pub work: &'a Pending,
    /// The token ids of the whole text, cut up.
    pub segments: &'a [&'a [u32]],
    /// The rows of each segment.
    pub rows: &'a [SummaryRows],
}

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Its id.
    pub id: String,
    /// Its group.
    pub group: String,
    /// Its title.
    pub title: String,
    /// Digest of its text.
    pub text: Digest,
    /// Length of its text in bytes.
    pub text_bytes: u64,
    /// When it was added, in seconds since 1970.
    pub created: u64,
    /// Its summary, once compressed.
    pub summary: Option<Summary>,
    /// Newer contents that are not compressed yet.
    pub staged: Option<Staged>,
}

/// Contents that a document will have once they are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Staged {
    /// The group.
    pub group: String,
    /// The title.
    pub title: String,
    /// Digest of the text.
    pub text: Digest,
    /// Length of the text in bytes.
    pub text_bytes: u64,
}

/// The summary of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// What made it.
    pub encoder: EncoderInfo,
    /// Tokens it stands for.
    pub tokens: u64,
    /// Keys of its segments, in order.
    pub segments: Vec<Digest>,
}

/// A text waiting to be compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// The document.
    pub id: String,
    /// Digest of its newest text; see [`Store::text`](super::Store::text).
    pub text: Digest,
    /// Length of that text in bytes.
    pub text_bytes: u64,
    /// Whether readers have a summary of this very text; of a text that is pending, by another encoder.
    pub stale: bool,
}

impl Pending {
    /// The newest text of a document, whether it waits or not.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let shown = (document.text, document.text_bytes);
        let (text, text_bytes) = document.staged.as_ref().map_or(shown, |staged| (staged.text, staged.text_bytes));
        let stale = document.staged.is_none() && document.summary.is_some();
        Self { id: document.id.clone(), text, text_bytes, stale }
    }
}

/// A compression under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    pub(super) id: String,
    pub(super) text: Digest,
    pub(super) encoder: EncoderInfo,
    pub(super) segments: Vec<Segment>,
    pub(super) done: usize,
}

impl Encoding {
    /// Segments whose summaries are stored; the next to compute has this index.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.done
    }

    /// All segments.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether nothing is left to compute.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.done == self.segments.len()
    }
}

/// A group of documents that share an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many documents it has.
    pub documents: u64,
    /// The adapter version in use.
    pub adapter: Option<u32>,
    /// All adapter versions, oldest first.
    pub versions: Vec<u32>,
}

/// A stored adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adapter {
    /// Its group.
    pub group: String,
    /// Its version, from 1.
    pub version: u32,
    /// Its directory in PEFT layout; read-only by agreement.
    pub path: PathBuf,
}

/// A share of the work, for several processes over one corpus.
///
/// Texts are dealt out by their digest, so that equal texts fall to one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Shard {
    /// All of the work.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// Share `index` (from 0) of `of`.
    ///
    /// # Errors
    /// [`Error::InvalidShard`] unless `index < of`.
    pub const fn new(index: u32, of: u32) -> Result<Self> {
        if index < of { Ok(Self { index, of }) } else { Err(Error::InvalidShard { index, of }) }
    }

    /// Whether a text belongs to this share.
    #[must_use]
    pub fn contains(&self, text: &Digest) -> bool {
        let head = text.bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        head % u64::from(self.of) == u64::from(self.index)
    }
}

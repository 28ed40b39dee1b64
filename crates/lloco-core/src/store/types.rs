//! What goes in and out of a store, as plain data.

use std::path::PathBuf;

use super::encoder::{EncoderInfo, Segment};
use super::layout::check_name;
use super::precision::SummaryRows;
use crate::digest::Digest;
use crate::error::{Error, Result};

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

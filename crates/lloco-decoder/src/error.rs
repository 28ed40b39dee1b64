//! What can go wrong when loading or running a model.

use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Each variant says where, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- files ---
    /// The file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file's bytes are not what its format demands (truncated, lying header, not JSON, ...).
    #[error("{} is damaged or not what it claims to be: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which part, what was expected and what was found.
        detail: String,
    },
    /// A directory or file holds no checkpoint that this crate reads.
    #[error("{} holds no checkpoint: {detail}", path.display())]
    NoCheckpoint {
        /// The directory or file.
        path: PathBuf,
        /// What was looked for and what to do.
        detail: String,
    },

    // --- architecture ---
    /// A field asks for something that this crate does not implement.
    #[error("{}: `{field}` = {value} is not supported{}", path.display(), hint(.supported))]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// The field's name.
        field: String,
        /// The field's value.
        value: String,
        /// What would be supported; may be empty.
        supported: String,
    },
    /// A field is missing or its value makes no sense.
    #[error("{}: `{field}` {detail}", path.display())]
    InvalidField {
        /// The file.
        path: PathBuf,
        /// The field's name.
        field: String,
        /// What is wrong with it.
        detail: String,
    },

    // --- tensors ---
    /// The checkpoint lacks a tensor that the architecture needs.
    #[error("{}: tensor `{name}` is missing; is this the checkpoint that config.json describes?", path.display())]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's checkpoint name.
        name: String,
    },
    /// A tensor has another shape than the configuration demands.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    ShapeMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's checkpoint name.
        name: String,
        /// The shape that the configuration demands.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    // --- text ---
    /// The tokenizer file is unusable, or a text could not be encoded or decoded.
    #[error("tokenizer {}: {detail}", path.display())]
    Tokenizer {
        /// Where the tokenizer came from.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The tokenizer makes ids that the model has no embedding for.
    #[error("tokenizer of {} makes ids up to {max_id}, but the model's vocabulary has {vocab_size} entries: they do not belong together", path.display())]
    TokenizerMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The tokenizer's largest id.
        max_id: u32,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// A chat template cannot be parsed or rendered.
    #[error("chat template: {detail}")]
    Template {
        /// What is wrong.
        detail: String,
    },

    // --- inputs ---
    /// A token id is not in the vocabulary.
    #[error("token id {id} at position {position} is beyond the vocabulary of {vocab_size} entries")]
    OutOfVocabulary {
        /// The id.
        id: u32,
        /// Where in the input it stands.
        position: usize,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// There is nothing to read.
    #[error("the prompt is empty: give it at least one token or embedding row")]
    EmptyPrompt,
    /// Embedding rows, caches or paddings do not fit the model or each other.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What does not fit.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// No next token can be chosen: a score is NaN, or none is above negative infinity.
    #[error(
        "the scores of generated token {position} are no numbers: the weights, the adapter or the prompt's embeddings hold \
         some that are not finite"
    )]
    NoScores {
        /// Which of the tokens behind the prompt, from 0.
        position: usize,
    },
    /// A setting is out of range.
    #[error("setting `{field}` = {value} is out of range; expected {expected}")]
    InvalidSetting {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// The values that are allowed.
        expected: &'static str,
    },
}

fn hint(supported: &str) -> String {
    if supported.is_empty() { String::new() } else { format!("; supported: {supported}") }
}

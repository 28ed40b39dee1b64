use std::path::PathBuf;

/// Result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong when loading an embedder, splitting a text or searching an index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: "open", "read", "write".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// A model directory lacks a file that every embedder needs.
    #[error("`{}` has no `{file}`: {advice}", directory.display())]
    MissingFile {
        /// The model directory.
        directory: PathBuf,
        /// The file that is not there.
        file: &'static str,
        /// What to do about it.
        advice: &'static str,
    },

    /// A file is not what its name says.
    #[error("`{}` is not valid: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it, with the field's name where there is one.
        detail: String,
    },

    /// A configuration asks for something that this crate does not compute.
    #[error("`{}`: `{field}` is {found}, supported: {supported}", path.display())]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// The values that would work.
        supported: &'static str,
    },

    /// A value in an [`EmbedderConfig`](crate::EmbedderConfig), a
    /// [`PassageConfig`](crate::PassageConfig) or an argument is out of range.
    #[error("`{field}` is {found}, expected {expected}")]
    InvalidConfig {
        /// The field or argument.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be accepted.
        expected: String,
    },

    /// The weights lack a tensor that the configuration promises.
    #[error("`{}` has no tensor `{tensor}`: does `config.json` belong to these weights?", path.display())]
    MissingTensor {
        /// The safetensors file.
        path: PathBuf,
        /// The name, without prefix.
        tensor: String,
    },

    /// A tensor has another shape than the configuration says.
    #[error("`{}`: tensor `{tensor}` has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A tensor's numbers are of a type that cannot be read.
    #[error("`{}`: tensor `{tensor}` is {found}, supported: F32, F16, BF16", path.display())]
    TensorType {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
    },

    /// The tokenizer knows ids that the word embeddings do not.
    #[error("`{}` has token id {id}, but the model's vocabulary ends at {vocab_size}: use the tokenizer that came with these weights", path.display())]
    TokenizerMismatch {
        /// The tokenizer file.
        path: PathBuf,
        /// The largest id of the tokenizer.
        id: u32,
        /// Rows of the word embedding.
        vocab_size: usize,
    },

    /// The tokenizer refused a text.
    #[error("cannot tokenize: {0}")]
    Tokenize(String),

    /// The device did not give back what was computed on it.
    #[error("cannot read embeddings from the device: {0}")]
    Device(String),

    /// A vector has another length than the index or matrix it is meant for.
    #[error("vector has {found} dimensions, expected {expected}")]
    Dimension {
        /// Dimensions of the index or matrix.
        expected: usize,
        /// Dimensions of the vector.
        found: usize,
    },

    /// As many keys as rows are needed.
    #[error("{keys} keys for {rows} vectors: give one key a vector")]
    KeyCount {
        /// Number of keys given.
        keys: usize,
        /// Number of vectors given.
        rows: usize,
    },

    /// A vector holds a NaN, an infinity, or a number too large for the index's row type.
    #[error("vector {row} holds {value} at dimension {dimension}, which the index cannot store")]
    NotFinite {
        /// Row among the vectors given.
        row: usize,
        /// Dimension of the offending number.
        dimension: usize,
        /// The number.
        value: f32,
    },

    /// An index was built with another embedder.
    #[error("`{}` was built with embedder {found}, this is {expected}: rebuild the index or load the embedder it was built with", path.display())]
    Fingerprint {
        /// The index file.
        path: PathBuf,
        /// Fingerprint of the embedder at hand.
        expected: String,
        /// Fingerprint in the file.
        found: String,
    },

    /// An index that was never saved has no file to append to or to verify.
    #[error("the index has no file yet: `save` it first")]
    NotSaved,

    /// An index file is not what it was when it was opened.
    #[error("`{}` was changed since it was opened: open it again and repeat the change", path.display())]
    Changed {
        /// The index file.
        path: PathBuf,
    },

    /// An index file comes from a later version of this crate.
    #[error("`{}` has format version {found}, this build reads up to {supported}: update lloco-retrieval or rebuild the index", path.display())]
    FormatVersion {
        /// The index file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Latest version that this build reads.
        supported: u32,
    },

    /// A keyword index was made with other rules for what a word is.
    #[error("`{}` was built with the word rules {found}, this build has {expected}: rebuild the index", path.display())]
    Analyzer {
        /// The index's seal.
        path: PathBuf,
        /// The rules of this build.
        expected: &'static str,
        /// The rules that the index was made with.
        found: String,
    },

    /// Reading or writing a keyword index failed.
    #[error("keyword index `{}`: {detail}", path.display())]
    Keyword {
        /// The index's directory.
        path: PathBuf,
        /// What the search library reported.
        detail: String,
    },

    /// An index's bytes do not add up.
    #[error("`{}` is damaged: {detail}; rebuild the index", path.display())]
    Damaged {
        /// The index file.
        path: PathBuf,
        /// What does not add up.
        detail: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn malformed(path: impl Into<PathBuf>, detail: impl ToString) -> Self {
        Self::Malformed { path: path.into(), detail: detail.to_string() }
    }
}

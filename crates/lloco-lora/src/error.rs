//! What can go wrong with adapters, their files and their training.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Each variant says where, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- files ---
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file or directory.
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
    /// The adapter is a pickled PyTorch file, which may run code when opened.
    #[error("{} is a pickled PyTorch file and is not read; load it with PEFT and save it with `safe_serialization=True`", path.display())]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// There is something where the directory should be written.
    #[error("{} exists already; give another name or remove it first", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },

    // --- configuration ---
    /// A field of a file has a value that is out of range or that this crate does not implement.
    #[error("{}: `{field}` = {value} is not supported: {expected}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What would be supported.
        expected: String,
    },
    /// A setting given in code is out of range or not implemented.
    #[error("`{field}` = {value} is not possible: {expected}")]
    Setting {
        /// The setting.
        field: String,
        /// Its value.
        value: String,
        /// What is allowed.
        expected: String,
    },

    // --- tensors ---
    /// A tensor that the adapter's configuration promises is not there.
    #[error("{}: tensor `{name}` is missing, though the configuration promises it", path.display())]
    MissingTensor {
        /// The file, or a word for where the adapter came from.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor is there that the adapter's configuration does not account for.
    #[error("{}: tensor `{name}` belongs to no module that the configuration adapts in this model", path.display())]
    UnexpectedTensor {
        /// The file, or a word for where the adapter came from.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape than the model demands: the adapter belongs to another model.
    #[error("{}: tensor `{name}` has shape {found:?}, this model needs {expected:?}: the adapter was made for another model or rank", path.display())]
    ShapeMismatch {
        /// The file, or a word for where the adapter came from.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape that model and configuration demand.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Adapters of one batch replace the same module with different weights, which one pass cannot do.
    #[error("adapters of one batch replace `{module}` differently; ask them one after the other")]
    BatchConflict {
        /// The module.
        module: &'static str,
    },
    /// Values could not be read back from the device.
    #[error("cannot read {what} from the device: {detail}")]
    Device {
        /// What was read.
        what: String,
        /// What the backend said.
        detail: String,
    },

    // --- training ---
    /// There is nothing to train on.
    #[error("no examples: give the trainer at least one")]
    NoExamples,
    /// An example cannot be trained on.
    #[error("example {index} ({name}): {detail}")]
    Example {
        /// Its place in the list.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Loss, gradients or what a step would make of the adapter stopped being numbers. Adapter and checkpoints are as
    /// before the step; a [resumed](crate::Trainer::resume) run takes a lower learning rate, whereas a run that keeps its
    /// directory by its settings, as `Lloco::finetune` does, begins anew under one.
    #[error("{what} at step {step} on examples {examples:?}; lower the learning rate or look at these examples")]
    NotFinite {
        /// `loss = NaN`, for example.
        what: String,
        /// The step, from 1; 0 outside a run.
        step: usize,
        /// The names of the batch's examples.
        examples: Vec<String>,
    },
    /// A directory holds checkpoints of a run that is further than this one.
    #[error("{} is at step {found}, this run at step {step}: resume from it or choose another directory", path.display())]
    CheckpointAhead {
        /// The newest checkpoint.
        path: PathBuf,
        /// Its step.
        found: usize,
        /// The step of this run.
        step: usize,
    },
    /// A checkpoint was written by a run of another configuration, on other examples or with others held out.
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

    /// The model refused.
    #[error(transparent)]
    Decoder(#[from] lloco_decoder::Error),
}

impl Error {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { action: "read", path: path.to_path_buf(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { action: "write", path: path.to_path_buf(), source }
    }

    pub(crate) fn setting(field: &str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting { field: field.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A setting's error, as one of the file that holds the setting.
    pub(crate) fn at(self, file: &Path) -> Self {
        match self {
            Self::Setting { field, value, expected } => {
                Self::Unsupported { path: file.to_path_buf(), field, value, expected }
            }
            other => other,
        }
    }
}

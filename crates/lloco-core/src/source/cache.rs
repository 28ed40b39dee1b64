//! The model cache: `models/NAME/…`, one lock file a model, downloads in a staging directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::pinned::{PinnedFile, PinnedModel};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Prefix of staging directories; leftovers of killed processes are swept under the model's lock.
const STAGING: &str = ".fetch-";

/// The user's model cache.
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `directory`, else `$LLOCO_CACHE`, else the user's cache directory. Creates nothing.
    pub(super) fn open(directory: Option<&Path>) -> Result<Self> {
        let root = match (directory, std::env::var_os("LLOCO_CACHE")) {
            (Some(directory), _) => directory.to_path_buf(),
            (None, Some(directory)) if !directory.is_empty() => directory.into(),
            _ => dirs::cache_dir().ok_or(Error::NoCacheDirectory)?.join("lloco"),
        };
        Ok(Self { root: root.join("models") })
    }

    pub(super) fn directory(&self, model: &PinnedModel) -> PathBuf {
        self.root.join(model.name)
    }

    /// The cached model, verified byte for byte, or why there is none.
    pub(super) fn lookup(&self, model: &PinnedModel) -> std::result::Result<PathBuf, String> {
        let directory = self.directory(model);
        if !directory.is_dir() {
            return Err(format!("{} does not exist", directory.display()));
        }
        verify(&directory, model)?;
        Ok(entry(directory, model))
    }

    /// Takes the model's lock, waiting for another process that holds it, and prepares an empty
    /// staging directory.
    pub(super) fn lock(&self, model: &'static PinnedModel) -> Result<Slot<'_>> {
        fs::create_dir_all(&self.root).map_err(|e| Error::io("create", &self.root, e))?;
        let path = self.root.join(format!("{}.lock", model.name));
        let lock = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        lock.lock().map_err(|e| Error::io("lock", &path, e))?;
        let prefix = format!("{STAGING}{}-", model.name);
        for leftover in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if leftover.file_name().to_string_lossy().starts_with(&prefix) {
                // Removal may fail; the leftover then only costs space.
                let _ = fs::remove_dir_all(leftover.path());
            }
        }
        let work = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&self.root)
            .map_err(|e| Error::io("create a temporary directory in", &self.root, e))?;
        let slot = Slot { cache: self, model, work, _lock: lock };
        slot.clear()?;
        Ok(slot)
    }
}

/// The right to fetch one model, until dropped. Dropping removes whatever was not published.
pub(super) struct Slot<'a> {
    cache: &'a Cache,
    model: &'static PinnedModel,
    work: tempfile::TempDir,
    _lock: File,
}

impl Slot<'_> {
    /// Where the model's files are put together.
    pub(super) fn staging(&self) -> PathBuf {
        self.work.path().join("model")
    }

    /// Where a route may write anything else.
    pub(super) fn scratch(&self) -> PathBuf {
        self.work.path().join("scratch")
    }

    /// Empties both directories and names them: (staging, scratch).
    pub(super) fn clear(&self) -> Result<(PathBuf, PathBuf)> {
        for directory in [self.staging(), self.scratch()] {
            if directory.exists() {
                fs::remove_dir_all(&directory).map_err(|e| Error::io("remove", &directory, e))?;
            }
            fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
        }
        Ok((self.staging(), self.scratch()))
    }

    /// Moves the verified files into place.
    pub(super) fn publish(&self) -> Result<PathBuf> {
        let target = self.cache.directory(self.model);
        for file in self.model.files {
            let path = self.staging().join(file.path);
            File::open(&path).and_then(|file| file.sync_all()).map_err(|e| Error::io("sync", &path, e))?;
        }
        if target.exists() {
            // A damaged copy: out of the way first, removed with the rest of the work directory.
            let old = self.work.path().join("damaged");
            fs::rename(&target, &old).map_err(|e| Error::io("replace", &target, e))?;
        }
        fs::rename(self.staging(), &target).map_err(|e| Error::io("create", &target, e))?;
        Ok(entry(target, self.model))
    }
}

fn entry(directory: PathBuf, model: &PinnedModel) -> PathBuf {
    match model.entry {
        Some(file) => directory.join(file),
        None => directory,
    }
}

/// Checks every file of a model below `directory`.
pub(super) fn verify(directory: &Path, model: &PinnedModel) -> std::result::Result<(), String> {
    model.files.iter().try_for_each(|file| verify_file(&directory.join(file.path), file))
}

/// Checks one file: its size, then its SHA-256.
pub(super) fn verify_file(path: &Path, file: &PinnedFile) -> std::result::Result<(), String> {
    let name = path.display();
    let bytes = fs::metadata(path).map_err(|e| format!("{name}: {e}"))?.len();
    if bytes != file.bytes {
        return Err(format!("{name} has {bytes} bytes, expected {}", file.bytes));
    }
    let found = Digest::of_file(path).map_err(|e| format!("{name}: {e}"))?.to_string();
    if found != file.sha256 {
        return Err(format!("{name} has SHA-256 {found}, expected {}", file.sha256));
    }
    Ok(())
}

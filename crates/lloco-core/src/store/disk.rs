//! Every change to the file system: written aside, synced, renamed, directory synced.
//!
//! All steps pass through one hook, so that tests can fail or kill the process at each of them.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::{NamedTempFile, TempDir, TempPath};

use crate::error::{Error, Result};

/// A step that changes the disk.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct IoStep<'a> {
    /// `write`, `sync`, `rename`, `remove`, `create`, or one of the catalogue's.
    pub action: &'static str,
    /// The file or directory.
    pub path: &'a Path,
}

/// Called before each step that changes the disk; an error makes that step fail.
pub type IoHook = Arc<dyn Fn(&IoStep<'_>) -> io::Result<()> + Send + Sync>;

/// Writes files durably.
#[derive(Clone, Default)]
pub(super) struct Disk {
    hook: Option<IoHook>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("hook", &self.hook.is_some()).finish()
    }
}

impl Disk {
    pub(super) const fn new(hook: Option<IoHook>) -> Self {
        Self { hook }
    }

    pub(super) const fn hook(&self) -> Option<&IoHook> {
        self.hook.as_ref()
    }

    fn step(&self, action: &'static str, path: &Path) -> Result<()> {
        let allowed = self.hook.as_ref().map_or(Ok(()), |hook| hook(&IoStep { action, path }));
        allowed.map_err(|error| Error::io(action, path, error))
    }

    /// Creates a directory and its parents; each new one is made durable in its parent.
    pub(super) fn create_directory(&self, path: &Path) -> Result<()> {
        if self.create_unsynced(path)? { self.sync_parent(path) } else { Ok(()) }
    }

    /// As [`Disk::create_directory`], but leaves it to the caller to sync the parent. False if there is one.
    pub(super) fn create_unsynced(&self, path: &Path) -> Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_directory(parent)?;
        }
        self.step("create", path)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create", path, error)),
            _ => Ok(true),
        }
    }

    /// Writes a file with these contents under a temporary name in `aside`, and syncs it.
    pub(super) fn write_aside(&self, aside: &Path, contents: &[u8]) -> Result<NamedTempFile> {
        self.step("write", aside)?;
        let failed = |error| Error::io("write a file in", aside, error);
        let mut file = builder(0o666).tempfile_in(aside).map_err(failed)?;
        file.write_all(contents).map_err(failed)?;
        self.step("sync", file.path())?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(file)
    }

    /// As [`Disk::write_aside`], but leaves the syncing to [`Disk::sync_file`].
    pub(super) fn write_unsynced(&self, aside: &Path, contents: &[u8]) -> Result<TempPath> {
        self.step("write", aside)?;
        let failed = |error| Error::io("write a file in", aside, error);
        let mut file = builder(0o666).tempfile_in(aside).map_err(failed)?;
        file.write_all(contents).map_err(failed)?;
        Ok(file.into_temp_path())
    }

    /// Makes a file's contents durable.
    pub(super) fn sync_file(&self, path: &Path) -> Result<()> {
        self.step("sync", path)?;
        let sync = || File::options().write(true).open(path)?.sync_all();
        sync().map_err(|error| Error::io("sync", path, error))
    }

    /// Gives a synced file its name, which is durable after [`Disk::sync_names`] of the directory.
    pub(super) fn name(&self, file: TempPath, path: &Path) -> Result<()> {
        self.step("rename", path)?;
        file.persist(path).map_err(|error| Error::io("rename to", path, error.error))
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_names(&self, directory: &Path) -> Result<()> {
        self.step("sync", directory)?;
        sync_directory(directory)
    }

    /// Gives a file written aside its name; replaces what was there.
    pub(super) fn publish(&self, file: NamedTempFile, path: &Path) -> Result<()> {
        self.step("rename", path)?;
        file.persist(path).map_err(|error| Error::io("rename to", path, error.error))?;
        self.sync_parent(path)
    }

    /// As [`Disk::publish`], but leaves a file that has the name already. False if there was one.
    pub(super) fn publish_new(&self, file: NamedTempFile, path: &Path) -> Result<bool> {
        self.step("rename", path)?;
        match file.persist_noclobber(path) {
            Ok(_) => self.sync_parent(path).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io("rename to", path, error.error)),
        }
    }

    /// A temporary directory in `aside`.
    pub(super) fn directory_aside(&self, aside: &Path) -> Result<TempDir> {
        self.step("create", aside)?;
        builder(0o777).tempdir_in(aside).map_err(|error| Error::io("create a directory in", aside, error))
    }

    /// Writes a synced file into a directory that has no readers yet.
    pub(super) fn write_inside(&self, path: &Path, contents: &[u8]) -> Result<()> {
        self.step("write", path)?;
        let write = || {
            let mut file = File::create(path)?;
            file.write_all(contents)?;
            file.sync_all()
        };
        write().map_err(|error| Error::io("write", path, error))
    }

    /// Gives a directory made aside its name.
    pub(super) fn publish_directory(&self, directory: TempDir, path: &Path) -> Result<()> {
        sync_directory(directory.path())?;
        self.step("rename", path)?;
        fs::rename(directory.path(), path).map_err(|error| Error::io("rename to", path, error))?;
        // The directory has moved; there is nothing left under the temporary name to remove.
        let _ = directory.keep();
        self.sync_parent(path)
    }

    /// Gives a file a second name, or copies it where the system knows no second names.
    pub(super) fn keep(&self, path: &Path, kept: &Path) -> Result<()> {
        self.step("create", kept)?;
        let copy = |_| fs::copy(path, kept).and_then(|_| File::open(kept)?.sync_all());
        fs::hard_link(path, kept).or_else(copy).map_err(|error| Error::io("create", kept, error))?;
        self.sync_parent(kept)
    }

    /// Removes a file or directory. What is gone already is fine.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.step("remove", path)?;
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
            _ => Ok(()),
        }
    }

    fn sync_parent(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        self.sync_names(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }
}

/// Names and rights of what is written aside: rights as for any new file, so that others may read
/// a store if the user's settings say so.
fn builder(_mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("tmp-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(_mode));
    builder
}

/// Makes renames inside a directory durable, where the system has such a notion.
fn sync_directory(path: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(path).and_then(|file| file.sync_all()).map_err(|error| Error::io("sync", path, error))?;
    }
    Ok(())
}

/// Refuses a symbolic link inside a store: following it would touch what is not the store's.
pub(super) fn refuse_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_symlink() => {
            Err(Error::damaged(path, "it is a symbolic link, which a store never holds: remove the link"))
        }
        _ => Ok(()),
    }
}

/// The names in a directory; none if it does not exist.
///
/// # Errors
/// [`Error::Damaged`] if it is a symbolic link.
pub(super) fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("list", path, error);
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

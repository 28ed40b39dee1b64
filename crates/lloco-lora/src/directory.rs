//! Directories, and files, that appear whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// A directory under construction, hidden beside its final place. Dropped unpublished, it is removed.
#[derive(Debug)]
pub struct Draft {
    target: PathBuf,
    partial: PathBuf,
    published: bool,
}

impl Draft {
    /// Starts a directory that will be `target`, which must not exist (or be an empty directory).
    ///
    /// # Errors
    /// [`Error::Exists`] when it does, [`Error::Io`] when the draft cannot be made.
    pub fn new(target: &Path) -> Result<Self> {
        if fs::read_dir(target).map_or(target.exists(), |mut entries| entries.next().is_some()) {
            return Err(Error::Exists { path: target.to_path_buf() });
        }
        let partial = partial(target).ok_or_else(|| Error::Exists { path: target.to_path_buf() })?;
        // What a killed process left behind.
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::write(&partial))?;
        }
        fs::create_dir_all(&partial).map_err(Error::write(&partial))?;
        Ok(Self { target: target.to_path_buf(), partial, published: false })
    }

    /// Where a file of this name lies until the draft is published.
    pub fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Writes a file through to the disk.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_through(&self.path(name), bytes)
    }

    /// Moves the directory to its place, in one step.
    ///
    /// # Errors
    /// [`Error::Io`] when that fails.
    pub fn publish(mut self) -> Result<()> {
        sync(&self.partial)?;
        fs::rename(&self.partial, &self.target).map_err(Error::write(&self.target))?;
        self.published = true;
        sync_parent(&self.target)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nothing more can be done here; the next draft of this name removes it.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Writes a file in one step: until the new one is whole, there is what was there before.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path).ok_or_else(|| Error::Exists { path: path.to_path_buf() })?;
    let written = write_through(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path).map_err(Error::write(path)))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // Nothing more can be done here; the next file of this name takes its place.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Where something lies until it is whole: hidden beside its final place.
fn partial(target: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(target.file_name()?);
    name.push(".partial");
    Some(target.with_file_name(name))
}

/// Writes a file through to the disk.
fn write_through(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(Error::write(path))
}

/// Writes the entries of the directory that holds `path` through to the disk.
fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

/// Writes a directory's entries through to the disk.
fn sync(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::write(dir))?;
    }
    Ok(())
}

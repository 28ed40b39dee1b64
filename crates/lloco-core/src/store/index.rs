//! Files of the retriever, kept with the documents they index.

use std::path::PathBuf;

use super::local::LocalStore;
use crate::error::{Error, Result};

impl LocalStore {
    /// Writes an index file, or replaces it as a whole.
    ///
    /// An index is derived data: it is not in the catalogue, and is built again if it is lost or
    /// older than [`LocalStore::revision`].
    ///
    /// # Errors
    /// [`Error::InvalidName`] unless `name` is letters, digits, `-`, `_` and inner dots.
    pub fn put_index(&self, name: &str, contents: &[u8]) -> Result<PathBuf> {
        let path = self.index_path(name)?;
        let _guard = self.writing()?;
        self.disk.create_directory(&self.layout.index())?;
        self.disk.publish(self.disk.write_aside(&self.layout.aside(), contents)?, &path)?;
        Ok(path)
    }

    /// Where an index file or directory is, if there is one.
    ///
    /// # Errors
    /// As [`LocalStore::put_index`].
    pub fn index(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(Some(self.index_path(name)?).filter(|path| path.exists()))
    }

    /// Where to write an index file, in a directory that exists.
    pub(crate) fn index_file(&self, name: &str) -> Result<PathBuf> {
        let path = self.index_path(name)?;
        let _guard = self.writing()?;
        self.disk.create_directory(&self.layout.index())?;
        Ok(path)
    }

    fn index_path(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
            let name = name.chars().take(64).collect();
            let reason = "index files are named with letters, digits, `-`, `_` and inner dots";
            return Err(Error::InvalidName { kind: "index file", name, reason });
        }
        Ok(self.layout.index().join(name))
    }
}

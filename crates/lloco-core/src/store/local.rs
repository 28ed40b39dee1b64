//! The store as a directory, and the [`Store`] interface.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use redb::WriteTransaction;

use super::catalogue::{Catalogue, Failure};
use super::disk::Disk;
use super::encoder::EncoderInfo;
use super::layout::{Layout, check_version};
use super::open::StoreOptions;
use super::precision::SummaryRows;
use super::tables::Tables;
use super::types::{Adapter, Document, Encoding, Group, NewDocument, Pending, Shard};
use super::{Store, rows};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// A store in a directory of a local disk. Shared between threads by reference.
pub struct LocalStore {
    pub(super) layout: Layout,
    pub(super) disk: Disk,
    pub(super) catalogue: Catalogue,
    pub(super) writing: Mutex<()>,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Opens a store for writing, or creates it. See [`StoreOptions::open`].
    ///
    /// # Errors
    /// As [`StoreOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        StoreOptions::new().open(path)
    }

    /// Opens a store for reading, beside a writer if there is one.
    ///
    /// # Errors
    /// As [`StoreOptions::open_read_only`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        StoreOptions::new().open_read_only(path)
    }

    /// Whether this handle only reads.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.catalogue.is_read_only()
    }

    /// The store's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// A number that grows whenever what readers see of documents changes. An index built from
    /// the documents is current while it is the same.
    ///
    /// # Errors
    /// Only failures of the store itself.
    pub fn revision(&self) -> Result<u64> {
        self.catalogue.read(|transaction| {
            let meta = transaction.open_table(rows::META)?;
            Ok(meta.get("revision")?.map_or(0, |number| number.value()))
        })
    }

    pub(super) fn check_version(&self) -> Result<()> {
        let found = self.catalogue.read(|transaction| {
            let meta = transaction.open_table(rows::META)?;
            Ok(meta.get("version")?.map_or(0, |number| number.value()))
        })?;
        check_version(found, &self.layout.catalogue())
    }

    /// Waits until this process's other writers are done: files and rows change together.
    pub(super) fn writing(&self) -> Result<MutexGuard<'_, ()>> {
        if self.catalogue.is_read_only() {
            return Err(Error::ReadOnly { path: self.path().into() });
        }
        Ok(self.writing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes rows in one transaction, then removes the files that lost their last user.
    ///
    /// The guard shows that the caller holds the right to write.
    pub(super) fn change<T>(
        &self,
        _guard: &MutexGuard<'_, ()>,
        body: impl FnOnce(&mut Tables<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let (value, dead) = self.catalogue.write(|transaction: &WriteTransaction| {
            let mut tables = Tables::open(transaction)?;
            let value = body(&mut tables)?;
            Ok((value, tables.finish()?))
        })?;
        for path in dead.paths(&self.layout) {
            // The change is made; a file that stays is only space, which `compact` finds.
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, "a file without users stays");
            }
        }
        Ok(value)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Store for LocalStore {
    fn add(&self, document: &NewDocument<'_>) -> Result<Document> {
        self.add_document(document)
    }

    fn replace(&self, document: &NewDocument<'_>) -> Result<Document> {
        let stored = self.replace_documents(std::slice::from_ref(document))?.pop();
        stored.ok_or_else(|| Error::DocumentNotFound { id: document.id.into() })
    }

    fn replace_all(&self, documents: &[NewDocument<'_>]) -> Result<Vec<Document>> {
        self.replace_documents(documents)
    }

    fn remove(&self, id: &str) -> Result<bool> {
        self.remove_document(id)
    }

    fn document(&self, id: &str) -> Result<Option<Document>> {
        self.read_document(id)
    }

    fn documents(&self, group: Option<&str>) -> Result<Vec<Document>> {
        self.read_documents(group)
    }

    fn text(&self, text: &Digest) -> Result<String> {
        self.read_text(text)
    }

    fn pending(&self, encoder: &EncoderInfo, shard: Shard) -> Result<Vec<Pending>> {
        self.read_pending(encoder, shard)
    }

    fn begin(&self, work: &Pending, encoder: &EncoderInfo, segments: &[&[u32]]) -> Result<Encoding> {
        self.begin_encoding(work, encoder, segments)
    }

    fn prefix(&self, encoding: &Encoding) -> Result<SummaryRows> {
        self.read_prefix(encoding)
    }

    fn put_segment(&self, encoding: &mut Encoding, rows: &SummaryRows) -> Result<SummaryRows> {
        self.write_segment(encoding, rows)
    }

    fn commit(&self, encoding: &Encoding) -> Result<Document> {
        self.commit_encoding(encoding)
    }

    fn summary(&self, id: &str, encoder: &EncoderInfo) -> Result<SummaryRows> {
        self.mapped(id, encoder)?.to_rows()
    }

    fn groups(&self) -> Result<Vec<Group>> {
        self.read_groups()
    }

    fn put_adapter(&self, group: &str, directory: &Path) -> Result<Adapter> {
        self.write_adapter(group, directory)
    }

    fn adapter(&self, group: &str) -> Result<Option<Adapter>> {
        self.read_adapter(group)
    }

    fn set_adapter(&self, group: &str, version: Option<u32>) -> Result<Adapter> {
        self.choose_adapter(group, version)
    }
}

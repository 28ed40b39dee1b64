//! The store as a directory: opening, locking, and the [`Store`] interface.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use redb::WriteTransaction;

use super::catalogue::{Catalogue, Failure, WAY_OUT};
use super::disk::{Disk, IoHook, entries};
use super::layout::{FORMAT_VERSION, Layout, Stamp, check_version};
use super::precision::SummaryRows;
use super::recover::{Recovered, recover};
use super::tables::Tables;
use super::types::{Adapter, Document, EncoderInfo, Encoding, Group, NewDocument, Pending, Shard};
use super::{Store, rows};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How long to sleep between tries to get the store from another writer.
const RETRY: Duration = Duration::from_millis(20);

/// How to open a [`LocalStore`].
#[derive(Clone)]
pub struct StoreOptions {
    create: bool,
    wait: Duration,
    hook: Option<IoHook>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("create", &self.create).field("wait", &self.wait).finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// Creates the store if there is none; does not wait for another writer.
    #[must_use]
    pub const fn new() -> Self {
        Self { create: true, wait: Duration::ZERO, hook: None }
    }

    /// Whether a store is created where there is none.
    #[must_use]
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How long to wait for another writer to finish.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// A function called before each step that changes the disk, for fault injection.
    #[must_use]
    pub fn io_hook(mut self, hook: IoHook) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Opens for writing.
    ///
    /// # Errors
    /// [`Error::StoreLocked`] if another process still writes after the waiting time;
    /// [`Error::NotAStore`]; [`Error::FutureFormat`]; [`Error::Catalogue`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<LocalStore> {
        let (layout, disk) = (Layout::new(path.as_ref()), Disk::new(self.hook.clone()));
        layout.refuse_links()?;
        let created = if self.create { create(&layout, &disk) } else { Ok(()) };
        // Another process may have created it at the same time; then all is well.
        check(&layout).or_else(|missing| created.and(Err(missing)))?;
        let deadline = Instant::now() + self.wait;
        let catalogue = loop {
            match Catalogue::open(&layout.catalogue(), disk.hook()) {
                Err(Error::StoreLocked { .. }) if Instant::now() < deadline => std::thread::sleep(RETRY),
                outcome => break outcome?,
            }
        };
        let store = LocalStore { layout, disk, catalogue, writing: Mutex::new(()) };
        store.check_version()?;
        // Nobody else writes: what lies aside was left by a killed process.
        store.disk.create_directory(&store.layout.aside())?;
        for leftover in entries(&store.layout.aside())? {
            store.disk.remove(&leftover)?;
        }
        Ok(store)
    }

    /// Makes a new catalogue where it is damaged or lost. See [`LocalStore::recover`].
    ///
    /// # Errors
    /// As [`LocalStore::recover`].
    pub fn recover(&self, path: impl AsRef<Path>) -> Result<Option<Recovered>> {
        let layout = Layout::new(path.as_ref());
        layout.refuse_links()?;
        recover(self, &layout, &Disk::new(self.hook.clone()))
    }

    /// Opens for reading, beside a writer if there is one. Writes nothing, not even a lock file.
    ///
    /// # Errors
    /// [`Error::NotClosed`] if the last writer was killed and none has opened the store since;
    /// [`Error::NotAStore`]; [`Error::FutureFormat`]; [`Error::Catalogue`].
    pub fn open_read_only(&self, path: impl AsRef<Path>) -> Result<LocalStore> {
        let layout = Layout::new(path.as_ref());
        check(&layout)?;
        let catalogue = Catalogue::open_read_only(&layout.catalogue())?;
        let store = LocalStore { layout, disk: Disk::new(None), catalogue, writing: Mutex::new(()) };
        store.check_version()?;
        Ok(store)
    }
}

/// Makes an empty store where there is none, in steps that can be resumed.
fn create(layout: &Layout, disk: &Disk) -> Result<()> {
    if layout.check_stamp()? {
        if layout.catalogue().exists() {
            return Ok(());
        }
        // The catalogue comes before any contents: without it, contents mean that it was lost.
        if layout.texts().exists() {
            let reason = format!("it is missing; {WAY_OUT}");
            return Err(Error::Catalogue { path: layout.catalogue(), reason });
        }
    } else {
        let foreign = entries(layout.root())?.into_iter().find(|path| *path != layout.aside());
        if let Some(foreign) = foreign {
            let reason = format!("it has no format.json but holds {}", foreign.display());
            return Err(Error::NotAStore { path: layout.root().into(), reason });
        }
    }
    disk.create_directory(&layout.aside())?;
    let stamp = serde_json::to_vec(&Stamp::new("lloco-store")).unwrap_or_default();
    // Whole under another name first, so that a second process sees all of it or nothing.
    let empty = disk.write_aside(&layout.aside(), &[])?;
    Catalogue::open(empty.path(), None)?.write(|transaction| {
        Tables::open(transaction)?;
        transaction.open_table(rows::META)?.insert("version", FORMAT_VERSION)?;
        Ok(())
    })?;
    disk.publish_new(disk.write_aside(&layout.aside(), &stamp)?, &layout.stamp())?;
    disk.publish_new(empty, &layout.catalogue())?;
    Ok(())
}

/// Whether the directory is a store that this library reads.
fn check(layout: &Layout) -> Result<()> {
    let reason = |text: &str| Error::NotAStore { path: layout.root().into(), reason: text.into() };
    if !layout.root().is_dir() {
        return Err(reason("there is no such directory"));
    }
    layout.refuse_links()?;
    if !layout.check_stamp()? {
        return Err(reason("it has no format.json"));
    }
    if !layout.catalogue().is_file() {
        return Err(reason("it has no catalog.redb"));
    }
    Ok(())
}

/// A store in a directory of a local disk. Shared between threads by reference.
pub struct LocalStore {
    pub(super) layout: Layout,
    pub(super) disk: Disk,
    pub(super) catalogue: Catalogue,
    writing: Mutex<()>,
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

    fn check_version(&self) -> Result<()> {
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

//! Opening a store: the options, making an empty one, refusing what is none.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::catalogue::{Catalogue, WAY_OUT};
use super::disk::{Disk, IoHook, entries};
use super::layout::{FORMAT_VERSION, Layout, Stamp};
use super::local::LocalStore;
use super::recover::{Recovered, recover};
use super::rows;
use super::tables::Tables;
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
    // Whole under another name first, so that a second process sees all of it or nothing.
    let empty = disk.write_aside(&layout.aside(), &[])?;
    Catalogue::open(empty.path(), None)?.write(|transaction| {
        Tables::open(transaction)?;
        transaction.open_table(rows::META)?.insert("version", FORMAT_VERSION)?;
        Ok(())
    })?;
    disk.publish_new(disk.write_aside(&layout.aside(), &Stamp::of_store())?, &layout.stamp())?;
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

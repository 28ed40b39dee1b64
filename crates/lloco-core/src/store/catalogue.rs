//! The catalogue: one redb file, the store's single commit point.
//!
//! Opened in redb's single-writer mode: one process holds it for writing, others read it
//! meanwhile, each transaction on one consistent state.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, ConcurrencyMode, ReadTransaction, ReadableDatabase as _, StorageBackend, WriteTransaction,
};

use super::disk::{IoHook, IoStep};
use crate::error::{Error, Result};

/// What to do about a damaged catalogue.
pub(super) const WAY_OUT: &str = "restore it from a copy, or make a new one from the store's files with `recover`";
/// Memory for the catalogue's pages.
const CACHE_BYTES: usize = 64 << 20;

/// The open catalogue.
pub(super) struct Catalogue {
    path: PathBuf,
    database: RwLock<Database>,
}

enum Database {
    Writer(redb::Database),
    Reader(redb::ReadOnlyDatabase),
}

/// What can fail inside a transaction.
pub(super) enum Failure {
    Database(redb::Error),
    Row(serde_json::Error),
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Row(error)
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}

from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError, CompactionError);

impl Catalogue {
    /// Opens for writing; the whole file is checked, and repaired after a crash.
    ///
    /// # Errors
    /// [`Error::StoreLocked`] if another process writes.
    pub(super) fn open(path: &Path, hook: Option<&IoHook>) -> Result<Self> {
        let open = || {
            let file = File::options().read(true).write(true).open(path);
            let file = file.map_err(|error| Error::io("open", path, error))?;
            let mut builder = builder();
            builder.set_check_integrity_on_open(true);
            let files = FileBackend::new(file)?;
            Ok(match hook {
                Some(hook) => {
                    let (path, hook) = (path.into(), hook.clone());
                    builder.create_with_backend(Hooked { files, path, hook })?
                }
                None => builder.create_with_backend(files)?,
            })
        };
        Ok(Self { path: path.into(), database: RwLock::new(Database::Writer(guarded(path, open)?)) })
    }

    /// Opens for reading, beside a writer if there is one.
    pub(super) fn open_read_only(path: &Path) -> Result<Self> {
        let open = || {
            File::open(path).map_err(|error| Error::io("open", path, error))?;
            Ok(builder().open_read_only(path)?)
        };
        Ok(Self { path: path.into(), database: RwLock::new(Database::Reader(guarded(path, open)?)) })
    }

    pub(super) fn is_read_only(&self) -> bool {
        matches!(*self.shared(), Database::Reader(_))
    }

    fn shared(&self) -> RwLockReadGuard<'_, Database> {
        self.database.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs `body` on one consistent state.
    pub(super) fn read<T>(&self, body: impl FnOnce(&ReadTransaction) -> Result<T, Failure>) -> Result<T> {
        guarded(&self.path, || {
            let database = self.shared();
            let transaction = match &*database {
                Database::Writer(database) => database.begin_read()?,
                Database::Reader(database) => database.begin_read()?,
            };
            body(&transaction)
        })
    }

    /// Runs `body` and commits durably if it succeeds; else nothing has happened.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], and what `body` reports.
    pub(super) fn write<T>(&self, body: impl FnOnce(&WriteTransaction) -> Result<T, Failure>) -> Result<T> {
        guarded(&self.path, || {
            let database = self.shared();
            let Database::Writer(database) = &*database else {
                return Err(Error::ReadOnly { path: self.path.clone() }.into());
            };
            let transaction = database.begin_write()?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Gives pages that are no longer used back to the file system.
    pub(super) fn compact(&self) -> Result<()> {
        guarded(&self.path, || {
            let mut database = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Database::Writer(database) = &mut *database else {
                return Err(Error::ReadOnly { path: self.path.clone() }.into());
            };
            database.compact()?;
            Ok(())
        })
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter).set_cache_size(CACHE_BYTES);
    builder
}

/// Turns failures into errors that name the file; a panic counts as damage.
///
/// redb trusts a file that was closed properly, and may panic if another program altered it since.
fn guarded<T>(path: &Path, body: impl FnOnce() -> Result<T, Failure>) -> Result<T> {
    let failed = |reason: String| Error::Catalogue { path: path.into(), reason };
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(failed(format!("it is damaged; {WAY_OUT}")).into()));
    outcome.map_err(|failure| match failure {
        Failure::Store(error) => error,
        Failure::Row(error) => failed(format!("a row cannot be read: {error}")),
        Failure::Database(redb::Error::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                failed(format!("it is damaged ({error}); {WAY_OUT}"))
            }
            _ => Error::io("use", path, error),
        },
        Failure::Database(redb::Error::DatabaseAlreadyOpen) => {
            Error::StoreLocked { path: path.parent().unwrap_or(path).into() }
        }
        Failure::Database(redb::Error::RepairAborted) => {
            Error::NotClosed { path: path.parent().unwrap_or(path).into() }
        }
        Failure::Database(redb::Error::Corrupted(reason)) => failed(format!("it is damaged ({reason}); {WAY_OUT}")),
        Failure::Database(redb::Error::PreviousIo) => {
            failed("an earlier write failed; close the store and open it again".into())
        }
        Failure::Database(error) => failed(error.to_string()),
    })
}

/// A file whose changes pass through the hook first.
struct Hooked {
    files: FileBackend,
    path: PathBuf,
    hook: IoHook,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooked").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Hooked {
    fn step(&self, action: &'static str) -> io::Result<()> {
        (self.hook)(&IoStep { action, path: &self.path })
    }
}

type Locked<T> = std::result::Result<T, BackendError>;

impl StorageBackend for Hooked {
    fn len(&self) -> io::Result<u64> {
        self.files.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.files.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step("resize")?;
        self.files.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step("sync")?;
        self.files.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step("write")?;
        self.files.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.files.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.files.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.files.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.files.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.files.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.files.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.files.query_lock_range(start, end)
    }
}

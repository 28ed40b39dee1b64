//! What the index's directory must hold, with checksums.
//!
//! tantivy trusts the files it opens. `seal.json` lists them with length and SHA-256, and is compared with the directory
//! before tantivy sees it, so that a damaged index is an error and not a surprise. It is written after each commit under
//! a lock that readers take as well; a crash in between leaves an index that does not fit its seal, which is built again.

use super::analyzer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path};

const FILE: &str = "seal.json";
const LOCK: &str = "seal.lock";
/// Format that this build writes.
const VERSION: u32 = 1;
/// tantivy's list of the files it may delete.
const MANAGED: &str = ".managed.json";
/// A seal of more bytes than this is none.
const LARGEST: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
pub(super) struct Seal {
    version: u32,
    analyzer: String,
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// Held while the directory is read or changed.
pub(super) struct Guard {
    _file: File,
}

/// Waits until nobody writes.
pub(super) fn lock_to_read(directory: &Path) -> Result<Guard> {
    let path = directory.join(LOCK);
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    file.lock_shared().map_err(Error::io("lock", &path))?;
    Ok(Guard { _file: file })
}

/// Waits until nobody reads or writes.
pub(super) fn lock_to_write(directory: &Path) -> Result<Guard> {
    let path = directory.join(LOCK);
    let file = File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(Guard { _file: file })
}

impl Seal {
    /// Compares a directory with its seal.
    pub(super) fn check(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let damaged = |detail: String| Error::Damaged { path: directory.to_owned(), detail };
        let length = fs::metadata(&path).map_err(Error::io("open", &path))?.len();
        if length > LARGEST {
            return Err(damaged(format!("`{FILE}` has {length} bytes")));
        }
        let json = fs::read(&path).map_err(Error::io("read", &path))?;
        let seal: Self = serde_json::from_slice(&json).map_err(|e| damaged(format!("`{FILE}`: {e}")))?;
        if seal.version > VERSION {
            return Err(Error::FormatVersion { path, found: seal.version, supported: VERSION });
        }
        if seal.analyzer != analyzer::NAME {
            return Err(Error::Analyzer { path, expected: analyzer::NAME, found: seal.analyzer });
        }
        for (name, entry) in &seal.files {
            if !is_plain(Path::new(name)) {
                return Err(damaged(format!("`{FILE}` names {name:?}")));
            }
            let file = directory.join(name);
            if Entry::of(&file).map_err(Error::io("read", &file))? != *entry {
                return Err(damaged(format!("`{name}` does not match its checksum")));
            }
        }
        for required in ["meta.json", MANAGED] {
            if !seal.files.contains_key(required) {
                return Err(damaged(format!("`{FILE}` does not list `{required}`")));
            }
        }
        check_managed(directory)?;
        Ok(seal)
    }

    /// Writes the seal of the directory as it is; files that `before` lists and that never change are not read again.
    pub(super) fn write(directory: &Path, before: Option<&Self>) -> Result<Self> {
        let path = directory.join(FILE);
        let collect = || -> io::Result<BTreeMap<String, Entry>> {
            let mut files = BTreeMap::new();
            for file in fs::read_dir(directory)? {
                let file = file?;
                let Some(name) = file.file_name().to_str().map(str::to_owned) else { continue };
                if name.starts_with("seal.") || Path::new(&name).extension() == Some(OsStr::new("lock")) {
                    continue;
                }
                let segment = Path::new(&name).extension() != Some(OsStr::new("json"));
                let known = before.and_then(|seal| seal.files.get(&name)).filter(|_| segment);
                let entry = known.map_or_else(|| Entry::of(&file.path()), |entry| Ok(entry.clone()))?;
                files.insert(name, entry);
            }
            Ok(files)
        };
        let files = collect().map_err(Error::io("read", directory))?;
        let seal = Self { version: VERSION, analyzer: analyzer::NAME.to_owned(), files };
        let json = serde_json::to_vec_pretty(&seal).map_err(|e| Error::malformed(&path, e))?;
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix("seal.").tempfile_in(directory)?;
            file.write_all(&json)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(Error::io("write", &path))?;
        Ok(seal)
    }
}

impl Entry {
    fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut file, &mut hash)?;
        let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { bytes, sha256 })
    }
}

/// tantivy deletes files that its list names and that no segment needs: all must lie in the directory.
fn check_managed(directory: &Path) -> Result<()> {
    let path = directory.join(MANAGED);
    let json = fs::read(&path).map_err(Error::io("read", &path))?;
    let names: Vec<String> = serde_json::from_slice(&json).map_err(|e| Error::malformed(&path, e))?;
    match names.iter().find(|name| !is_plain(Path::new(name))) {
        None => Ok(()),
        Some(name) => Err(Error::malformed(&path, format!("{name:?} is no file of the index"))),
    }
}

/// Whether a path is a file name and nothing more.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == path.as_os_str())
}

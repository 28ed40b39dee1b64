//! Names of files in a store, and its format version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::refuse_link;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The format that this library writes. Every file of a store names its version.
pub const FORMAT_VERSION: u64 = 1;

/// The oldest format that this library reads.
pub const OLDEST_FORMAT_VERSION: u64 = 1;

/// What `format.json` says.
const STORE: &str = "lloco-store";
const STAMP_WAY_OUT: &str = "`recover` writes it again";

/// Longest document id or group name, in bytes.
pub(super) const NAME_LIMIT: usize = 512;

/// What a file of ours says about itself: in `format.json`, in the metadata of summaries, in
/// `lloco.json` beside adapters.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) format: String,
    pub(super) version: u64,
}

impl Stamp {
    pub(super) fn new(format: &str) -> Self {
        Self { format: format.into(), version: FORMAT_VERSION }
    }

    /// The contents of `format.json`.
    pub(super) fn of_store() -> Vec<u8> {
        serde_json::to_vec(&Self::new(STORE)).unwrap_or_default()
    }

    /// Refuses other formats and versions from the future.
    pub(super) fn check(&self, format: &str, path: &Path) -> Result<()> {
        if self.format != format {
            return Err(Error::damaged(path, format!("it is a {:?}, expected {format:?}", self.format)));
        }
        check_version(self.version, path)
    }
}

/// Refuses versions that this library cannot read.
pub(super) fn check_version(found: u64, path: &Path) -> Result<()> {
    if found > FORMAT_VERSION {
        return Err(Error::FutureFormat { path: path.into(), found, supported: FORMAT_VERSION });
    }
    if found < OLDEST_FORMAT_VERSION {
        return Err(Error::damaged(path, format!("format version {found} never existed")));
    }
    Ok(())
}

/// Paths below a store's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn stamp(&self) -> PathBuf {
        self.root.join("format.json")
    }

    pub(super) fn catalogue(&self) -> PathBuf {
        self.root.join("catalog.redb")
    }

    /// Where files are written before they get their names. Swept when a writer opens the store.
    pub(super) fn aside(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn texts(&self) -> PathBuf {
        self.root.join("text")
    }

    pub(super) fn text(&self, text: &Digest) -> PathBuf {
        fanned(&self.texts(), text, "txt")
    }

    pub(super) fn summaries(&self) -> PathBuf {
        self.root.join("summaries")
    }

    pub(super) fn summary(&self, key: &Digest) -> PathBuf {
        fanned(&self.summaries(), key, "safetensors")
    }

    pub(super) fn adapters(&self) -> PathBuf {
        self.root.join("adapters")
    }

    /// A group's adapters: a readable beginning and a digest, never the name itself.
    pub(super) fn group(&self, name: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let slug: String = name.chars().take(32).map(plain).collect();
        let digest = Digest::of(name.as_bytes()).to_string();
        self.adapters().join(format!("{slug}-{}", digest.get(..16).unwrap_or_default()))
    }

    pub(super) fn adapter(&self, group: &str, version: u32) -> PathBuf {
        self.group(group).join(version.to_string())
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Refuses directories of the store that are links to elsewhere.
    pub(super) fn refuse_links(&self) -> Result<()> {
        let own = [self.aside(), self.texts(), self.summaries(), self.adapters(), self.index(), self.root.join("runs")];
        own.iter().chain([&self.catalogue()]).try_for_each(|path| refuse_link(path))
    }

    /// Reads and checks `format.json`; false if there is none.
    pub(super) fn check_stamp(&self) -> Result<bool> {
        let path = self.stamp();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let stamp: Result<Stamp, _> = serde_json::from_slice(&text);
        let checked = stamp.map_err(|error| Error::damaged(&path, error.to_string()));
        match checked.and_then(|stamp| stamp.check(STORE, &path)) {
            Err(Error::Damaged { path, reason }) => Err(Error::damaged(&path, format!("{reason}; {STAMP_WAY_OUT}"))),
            checked => checked.map(|()| true),
        }
    }
}

/// `directory/ab/abcd….extension`
fn fanned(directory: &Path, digest: &Digest, extension: &str) -> PathBuf {
    let name = digest.to_string();
    directory.join(name.get(..2).unwrap_or_default()).join(format!("{name}.{extension}"))
}

/// Checks a document id or group name.
pub(super) fn check_name(kind: &'static str, name: &str) -> Result<()> {
    let reason = match name {
        "" => "it is empty",
        _ if name.len() > NAME_LIMIT => "it is longer than 512 bytes",
        _ if name.contains('\0') => "it contains a NUL character",
        _ => return Ok(()),
    };
    Err(Error::InvalidName { kind, name: name.chars().take(64).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_group_names_stay_inside() {
        let layout = Layout::new(Path::new("/store"));
        for name in ["../..", "/etc/passwd", "a\nb", "..", "é漢", "con.", "a/b"] {
            let path = layout.adapter(name, 3);
            assert_eq!(path.components().count(), 5, "{}", path.display());
            assert!(path.starts_with("/store/adapters") && path.ends_with("3"));
            assert!(path.to_str().unwrap().bytes().all(|b| b.is_ascii_alphanumeric() || b"/-".contains(&b)));
        }
        assert_ne!(layout.group("a/b"), layout.group("a-b"));
    }
}

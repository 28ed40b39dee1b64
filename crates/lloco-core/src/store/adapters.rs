//! Adapters of a group: directories in PEFT layout, one for each version.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};

use super::disk::{entries, refuse_link};
use super::layout::{Stamp, check_name};
use super::local::{LocalStore, now};
use super::rows::{AdapterRow, GROUPS, GroupRow};
use super::tables::{get, put};
use super::types::Adapter;
use crate::digest::Digest;
use crate::error::{Error, Result};

const FORMAT: &str = "lloco-adapter";
/// Our own file beside those of PEFT, which ignores it.
pub(super) const LABEL: &str = "lloco.json";

/// What `lloco.json` says.
#[derive(Serialize, Deserialize)]
struct Label {
    #[serde(flatten)]
    stamp: Stamp,
    group: String,
    adapter: u32,
    files: BTreeMap<String, Digest>,
}

impl LocalStore {
    pub(super) fn write_adapter(&self, group: &str, directory: &Path) -> Result<Adapter> {
        check_name("group", group)?;
        let files = read_files(directory)?;
        let digests: BTreeMap<String, Digest> =
            files.iter().map(|(name, text)| (name.clone(), Digest::of(text))).collect();
        let guard = self.writing()?;
        let row = self.group_row(group)?.unwrap_or_default();
        let current = row.current.and_then(|version| Some((version, row.versions.get(&version)?)));
        if let Some((version, _)) = current.filter(|(_, current)| current.files == digests) {
            return Ok(self.located(group, version));
        }

        let version = row.versions.keys().next_back().copied().unwrap_or(0) + 1;
        let path = self.layout.adapter(group, version);
        let aside = self.disk.directory_aside(&self.layout.aside())?;
        for (name, contents) in &files {
            self.disk.write_inside(&aside.path().join(name), contents)?;
        }
        let label = Label { stamp: Stamp::new(FORMAT), group: group.into(), adapter: version, files: digests.clone() };
        let label = serde_json::to_vec(&label).unwrap_or_default();
        self.disk.write_inside(&aside.path().join(LABEL), &label)?;
        refuse_link(&self.layout.group(group))?;
        self.disk.create_directory(&self.layout.group(group))?;
        if path.exists() {
            // Left by a process that was killed before it could commit.
            self.disk.remove(&path)?;
        }
        self.disk.publish_directory(aside, &path)?;
        self.change(&guard, |tables| {
            let mut row: GroupRow = get(&tables.groups, group)?.unwrap_or_default();
            row.versions.insert(version, AdapterRow { created: now(), files: digests });
            row.current = Some(version);
            put(&mut tables.groups, group, &row)
        })?;
        Ok(self.located(group, version))
    }

    pub(super) fn read_adapter(&self, group: &str) -> Result<Option<Adapter>> {
        let current = self.group_row(group)?.and_then(|row| row.current);
        Ok(current.map(|version| self.located(group, version)))
    }

    pub(super) fn choose_adapter(&self, group: &str, version: Option<u32>) -> Result<Adapter> {
        let guard = self.writing()?;
        let version = self.change(&guard, |tables| {
            let missing = |version| Error::AdapterNotFound { group: group.into(), version };
            let mut row: GroupRow = get(&tables.groups, group)?.ok_or_else(|| missing(version.unwrap_or(0)))?;
            let chosen = match version {
                Some(version) => version,
                None => {
                    let earlier = row.versions.range(..row.current.unwrap_or(0));
                    earlier.map(|(version, _)| *version).next_back().ok_or_else(|| missing(0))?
                }
            };
            if !row.versions.contains_key(&chosen) {
                return Err(missing(chosen).into());
            }
            row.current = Some(chosen);
            put(&mut tables.groups, group, &row)?;
            Ok(chosen)
        })?;
        Ok(self.located(group, version))
    }

    pub(super) fn group_row(&self, group: &str) -> Result<Option<GroupRow>> {
        self.catalogue.read(|transaction| get(&transaction.open_table(GROUPS)?, group))
    }

    /// Every group with its adapters.
    pub(super) fn group_rows(&self) -> Result<Vec<(String, GroupRow)>> {
        self.catalogue.read(|transaction| {
            let mut rows = Vec::new();
            for entry in transaction.open_table(GROUPS)?.iter()? {
                let (name, row) = entry?;
                rows.push((name.value().to_owned(), serde_json::from_slice(row.value())?));
            }
            Ok(rows)
        })
    }

    fn located(&self, group: &str, version: u32) -> Adapter {
        Adapter { group: group.into(), version, path: self.layout.adapter(group, version) }
    }
}

/// Checks every file of a stored adapter.
pub(super) fn check_adapter(
    directory: &Path,
    group: &str,
    version: u32,
    row: &AdapterRow,
) -> Vec<(PathBuf, Result<()>)> {
    let file = |(name, expected): (&String, &Digest)| {
        let path = directory.join(name);
        // A name out of the catalogue is not to be trusted as a path.
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return (directory.into(), Err(Error::damaged(directory, format!("{name:?} is no file name"))));
        }
        let checked = match Digest::of_file(&path) {
            Ok(found) if found == *expected => Ok(()),
            Ok(found) => Err(Error::checksum(&path, expected, &found)),
            Err(error) => Err(unreadable(&path, error)),
        };
        (path, checked)
    };
    let label = directory.join(LABEL);
    let checked = check_label(&label, group, version, row);
    row.files.iter().map(file).chain([(label, checked)]).collect()
}

/// What `lloco.json` in a stored adapter says: group, version, files.
pub(super) fn label(directory: &Path) -> Result<(String, u32, BTreeMap<String, Digest>)> {
    let path = directory.join(LABEL);
    let Label { group, adapter, files, .. } = read_label(&path)?;
    Ok((group, adapter, files))
}

/// Checks that `lloco.json` says what the catalogue says.
fn check_label(path: &Path, group: &str, version: u32, row: &AdapterRow) -> Result<()> {
    let label = read_label(path)?;
    match label.group == group && label.adapter == version && label.files == row.files {
        true => Ok(()),
        false => Err(Error::damaged(path, "it does not say what the catalogue says")),
    }
}

fn read_label(path: &Path) -> Result<Label> {
    let text = fs::read(path).map_err(|error| unreadable(path, error))?;
    let broken = |error: serde_json::Error| Error::damaged(path, error.to_string());
    serde_json::from_slice::<Stamp>(&text).map_err(broken)?.check(FORMAT, path)?;
    serde_json::from_slice(&text).map_err(broken)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::damaged(path, "it is missing"),
        _ => Error::io("read", path, error),
    }
}

/// The files of an adapter directory: its top level, at least configuration and weights.
fn read_files(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let odd = |reason: String| Error::NotAnAdapter { path: directory.into(), reason };
    if !directory.is_dir() {
        return Err(odd("there is no such directory".into()));
    }
    let mut files = BTreeMap::new();
    for path in entries(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| odd(format!("{} is not a UTF-8 name", path.display())))?;
        if name == LABEL {
            continue;
        }
        if !path.is_file() {
            return Err(odd(format!("{name} is not a file")));
        }
        files.insert(name.to_owned(), fs::read(&path).map_err(|error| Error::io("read", &path, error))?);
    }
    if !files.contains_key("adapter_config.json") {
        return Err(odd("it has no adapter_config.json".into()));
    }
    if !files.contains_key("adapter_model.safetensors") && !files.contains_key("adapter_model.bin") {
        return Err(odd("it has no adapter_model.safetensors".into()));
    }
    Ok(files)
}

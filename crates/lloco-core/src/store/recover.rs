//! A new catalogue from the store's files, when the old one is damaged or lost.
//!
//! Texts are named by their digest, summaries and adapters carry labels. Ids, groups and titles only
//! the catalogue knows; they are read from the damaged one as far as that goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::adapters::{check_adapter, label};
use super::catalogue::{Catalogue, Failure};
use super::check::Damage;
use super::disk::{Disk, entries, refuse_link};
use super::documents::new_document;
use super::encoder::EncoderInfo;
use super::layout::{FORMAT_VERSION, Layout, Stamp, check_name};
use super::local::{LocalStore, now};
use super::map::map;
use super::mapped::find;
use super::open::StoreOptions;
use super::rows::{AdapterRow, Contents, GroupRow, SummaryRow};
use super::salvage::Old;
use super::tables::{Tables, get, put};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Group of the documents whose names were lost.
const NAMELESS: &str = "recovered";

/// What [`LocalStore::recover`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Recovered {
    /// Documents, all of which wait to be compressed; that takes no time where their summaries are there.
    pub documents: u64,
    /// Those whose id, group and title are lost. They are in the group `recovered`, under the digests of their texts.
    pub nameless: u64,
    /// Summary files.
    pub summaries: u64,
    /// Those whose checksum is lost: their form was checked, but not each bit.
    pub unchecked: u64,
    /// Adapter versions.
    pub adapters: u64,
    /// Files that are damaged, and were left out.
    pub damaged: Vec<Damage>,
    /// Where the damaged catalogue is kept, if there was one.
    pub old: Option<PathBuf>,
}

impl LocalStore {
    /// Makes a new catalogue for a store whose catalogue is damaged or lost; `None` if it is neither. A damaged or lost
    /// `format.json` is written again.
    ///
    /// Every document waits to be compressed afterwards. Compressing finds the summaries that are there,
    /// and computes each document's from its first damaged one on. The old catalogue is kept beside the new one. Repeating it
    /// after an interruption is safe.
    ///
    /// # Errors
    /// [`Error::StoreLocked`]; [`Error::NotAStore`]; [`Error::FutureFormat`]; failures of the disk.
    pub fn recover(path: impl AsRef<Path>) -> Result<Option<Recovered>> {
        StoreOptions::new().recover(path)
    }
}

/// Makes a new catalogue unless the store can be opened.
pub(super) fn recover(options: &StoreOptions, layout: &Layout, disk: &Disk) -> Result<Option<Recovered>> {
    let (root, catalogue, stamp) = (layout.root(), layout.catalogue(), layout.stamp());
    let stamped = match layout.check_stamp() {
        Err(Error::Damaged { .. }) => false,
        found => found?,
    };
    if !stamped {
        if !catalogue.is_file() || !layout.texts().is_dir() {
            return Err(Error::NotAStore { path: root.into(), reason: "it has no format.json".into() });
        }
        disk.create_directory(&layout.aside())?;
        disk.publish(disk.write_aside(&layout.aside(), &Stamp::of_store())?, &stamp)?;
    }
    // One process recovers; the next one finds the work done.
    let lock = File::open(&stamp).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.map_err(|error| Error::io("lock", &stamp, error))?;
    let exists = catalogue.is_file();
    if exists {
        match options.clone().create(false).open(root) {
            Ok(_) => return Ok(None),
            Err(Error::Catalogue { .. }) => {}
            Err(Error::Damaged { path, .. }) if path == catalogue => {}
            Err(error) => return Err(error),
        }
    }
    disk.create_directory(&layout.aside())?;
    let old = if exists { Old::read(&catalogue, &layout.aside()) } else { Old::default() };
    let new = disk.write_aside(&layout.aside(), &[])?;
    let mut recovered = Catalogue::open(new.path(), disk.hook())?.write(|transaction| {
        let mut tables = Tables::open(transaction)?;
        tables.meta.insert("version", FORMAT_VERSION)?;
        // Above every number that the old catalogue can have reached.
        tables.meta.insert("revision", now())?;
        let mut recovered = Recovered::default();
        texts(&mut tables, layout, &old, &mut recovered)?;
        summaries(&mut tables, layout, &old, &mut recovered)?;
        adapters(&mut tables, layout, &old, &mut recovered)?;
        Ok(recovered)
    })?;
    if exists {
        let kept = root.join(format!("catalog.damaged-{}.redb", now()));
        disk.keep(&catalogue, &kept)?;
        recovered.old = Some(kept);
    }
    disk.publish(new, &catalogue)?;
    Ok(Some(recovered))
}

/// Documents: those that the old catalogue names, and those of all other texts.
fn texts(tables: &mut Tables<'_>, layout: &Layout, old: &Old, recovered: &mut Recovered) -> Result<(), Failure> {
    let mut intact = BTreeMap::new();
    for (digest, path) in named_by_digest(&layout.texts(), "txt", &mut recovered.damaged)? {
        let bytes = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        let found = Digest::of(&bytes);
        if found == digest && std::str::from_utf8(&bytes).is_ok() {
            intact.insert(digest, bytes.len() as u64);
        } else {
            recovered.damaged.push(damage(Error::checksum(&path, &digest, &found), path));
        }
    }
    let mut used = BTreeSet::new();
    for (id, row) in &old.documents {
        let mut forms = row.staged.iter().chain([&row.contents]);
        let Some(contents) = forms.find(|form| intact.get(&form.text) == Some(&form.bytes)) else { continue };
        used.insert(contents.text);
        new_document(tables, id, contents.clone())?;
        if let Some(mut new) = tables.document(id)? {
            new.created = row.created;
            tables.put_document(id, &new)?;
        }
        recovered.documents += 1;
    }
    // If every row was read, a text of no document is what a killed process left.
    let nameless = intact.into_iter().filter(|(text, _)| !old.is_complete && !used.contains(text));
    for (text, bytes) in nameless {
        let id = format!("{NAMELESS}/{text}");
        new_document(tables, &id, Contents { group: NAMELESS.into(), title: id.clone(), text, bytes })?;
        recovered.documents += 1;
        recovered.nameless += 1;
    }
    Ok(())
}

/// Summary files, without users for now: compressing their texts again finds them.
fn summaries(tables: &mut Tables<'_>, layout: &Layout, old: &Old, recovered: &mut Recovered) -> Result<(), Failure> {
    let mut encoders: BTreeMap<Digest, EncoderInfo> = BTreeMap::new();
    for (key, path) in named_by_digest(&layout.summaries(), "safetensors", &mut recovered.damaged)? {
        let known = old.summaries.get(&key);
        let checked = || -> Result<(SummaryRow, EncoderInfo)> {
            let bytes = map(&path)?;
            let sha256 = Digest::of(&bytes);
            if let Some(known) = known.filter(|known| known.sha256 != sha256) {
                return Err(Error::checksum(&path, &known.sha256, &sha256));
            }
            let found = find(&bytes, &path)?;
            if found.key != key {
                return Err(Error::damaged(&path, format!("it says that its key is {}", found.key)));
            }
            let rows = u32::try_from(found.rows).unwrap_or(u32::MAX);
            Ok((SummaryRow { sha256, bytes: bytes.len() as u64, rows, users: 0 }, found.encoder))
        };
        match checked() {
            Ok((row, encoder)) => {
                put(&mut tables.summaries, key.bytes(), &row)?;
                encoders.insert(encoder.id(), encoder);
                recovered.summaries += 1;
                recovered.unchecked += u64::from(known.is_none());
            }
            Err(error) => recovered.damaged.push(damage(error, path)),
        }
    }
    encoders.iter().try_for_each(|(id, encoder)| put(&mut tables.encoders, id.bytes(), encoder))
}

/// Adapter versions; where the old catalogue does not say which one is current, the newest is.
fn adapters(tables: &mut Tables<'_>, layout: &Layout, old: &Old, recovered: &mut Recovered) -> Result<(), Failure> {
    for group_directory in entries(&layout.adapters())? {
        refuse_link(&group_directory)?;
        for directory in entries(&group_directory)? {
            let checked = || -> Result<(String, u32, AdapterRow)> {
                let (group, version, files) = label(&directory)?;
                check_name("group", &group).map_err(|error| Error::damaged(&directory, error.to_string()))?;
                if layout.adapter(&group, version) != directory {
                    return Err(Error::damaged(
                        &directory,
                        format!("it says that it is version {version} of {group:?}"),
                    ));
                }
                let row = AdapterRow { created: now(), files };
                check_adapter(&directory, &group, version, &row).into_iter().try_for_each(|(_, checked)| checked)?;
                Ok((group, version, row))
            };
            match checked() {
                Ok((group, version, row)) => {
                    let mut groups: GroupRow = get(&tables.groups, group.as_str())?.unwrap_or_default();
                    groups.versions.insert(version, row);
                    let chosen = old.groups.get(&group).and_then(|row| row.current);
                    let chosen = chosen.filter(|chosen| groups.versions.contains_key(chosen));
                    groups.current = chosen.or_else(|| groups.versions.keys().next_back().copied());
                    put(&mut tables.groups, group.as_str(), &groups)?;
                    recovered.adapters += 1;
                }
                Err(error) => recovered.damaged.push(damage(error, directory)),
            }
        }
    }
    Ok(())
}

/// The files `directory/ab/abcd….extension` by their names; others are listed as damaged.
fn named_by_digest(directory: &Path, extension: &str, damaged: &mut Vec<Damage>) -> Result<Vec<(Digest, PathBuf)>> {
    let mut named = Vec::new();
    for inner in entries(directory)? {
        refuse_link(&inner)?;
        for path in entries(&inner)? {
            refuse_link(&path)?;
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let digest = stem.and_then(|stem| stem.parse().ok());
            match digest.filter(|_| path.extension().is_some_and(|own| own == extension)) {
                Some(digest) => named.push((digest, path)),
                None => damaged.push(damage(Error::damaged(&path, "it is not named as a store's file"), path)),
            }
        }
    }
    named.sort();
    Ok(named)
}

fn damage(error: Error, path: PathBuf) -> Damage {
    let reason = match error {
        Error::Damaged { reason, .. } => reason,
        other => other.to_string(),
    };
    Damage { path, reason, documents: Vec::new() }
}

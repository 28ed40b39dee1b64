//! Looking after a store: numbers, checksums, repair, tidying up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use redb::ReadableTable as _;
use serde::Serialize;

use super::adapters::check_adapter;
use super::disk::{entries, refuse_link};
use super::local::LocalStore;
use super::mapped::MappedSegment;
use super::rows::{DOCUMENTS, DocumentRow, ENCODINGS, EncodingRow, SEGMENTS, SUMMARIES, SummaryRow, TEXTS, TextRow};
use super::tables::segment_keys;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Documents.
    pub documents: u64,
    /// Documents whose newest text is compressed.
    pub compressed: u64,
    /// Groups.
    pub groups: u64,
    /// Different texts.
    pub texts: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Tokens of the texts that are compressed, once for each encoder.
    pub tokens: u64,
    /// Summary files.
    pub summaries: u64,
    /// Summary vectors.
    pub vectors: u64,
    /// Bytes of summary files.
    pub summary_bytes: u64,
    /// Bytes of the catalogue.
    pub catalogue_bytes: u64,
}

/// A damaged file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// Documents that need it.
    pub documents: Vec<String>,
}

/// What [`LocalStore::compact`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Swept {
    /// Files and adapter directories that nothing referred to.
    pub files: u64,
    /// How much the catalogue shrank, in bytes.
    pub catalogue_bytes: u64,
}

/// The catalogue's summaries and texts, each with the documents that need it.
#[derive(Default)]
struct Uses {
    texts: BTreeMap<Digest, BTreeSet<String>>,
    summaries: BTreeMap<Digest, (SummaryRow, BTreeSet<String>)>,
    /// (text, encoder, keys) of every encoding.
    encodings: Vec<(Digest, Digest, Vec<Digest>)>,
}

impl LocalStore {
    /// Counts what the store holds.
    ///
    /// # Errors
    /// Only failures of the store itself.
    pub fn stats(&self) -> Result<Stats> {
        let catalogue = self.layout.catalogue();
        let bytes = fs::metadata(&catalogue).map_err(|error| Error::io("read", &catalogue, error))?.len();
        let groups = self.group_rows()?.len() as u64;
        self.catalogue.read(|transaction| {
            let mut stats = Stats { catalogue_bytes: bytes, groups, ..Stats::default() };
            for entry in transaction.open_table(DOCUMENTS)?.iter()? {
                let row: DocumentRow = serde_json::from_slice(entry?.1.value())?;
                stats.documents += 1;
                stats.compressed += u64::from(row.encoder.is_some() && row.staged.is_none());
            }
            for entry in transaction.open_table(TEXTS)?.iter()? {
                stats.texts += 1;
                stats.text_bytes += serde_json::from_slice::<TextRow>(entry?.1.value())?.bytes;
            }
            for entry in transaction.open_table(ENCODINGS)?.iter()? {
                let row: EncodingRow = serde_json::from_slice(entry?.1.value())?;
                stats.tokens += if row.done == row.segments { row.tokens } else { 0 };
            }
            for entry in transaction.open_table(SUMMARIES)?.iter()? {
                let row: SummaryRow = serde_json::from_slice(entry?.1.value())?;
                stats.summaries += 1;
                stats.vectors += u64::from(row.rows);
                stats.summary_bytes += row.bytes;
            }
            Ok(stats)
        })
    }

    /// Reads every file against its checksum and lists those that are damaged or missing. The
    /// rest of the store stays usable.
    ///
    /// # Errors
    /// Only failures of the catalogue.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let uses = self.uses()?;
        let mut damages = Vec::new();
        let mut note = |path: PathBuf, checked: Result<()>, documents: BTreeSet<String>| {
            if let Err(error) = checked {
                let reason = match error {
                    Error::Damaged { reason, .. } => reason,
                    other => other.to_string(),
                };
                damages.push(Damage { path, reason, documents: documents.into_iter().collect() });
            }
        };
        for (text, documents) in uses.texts {
            note(self.layout.text(&text), self.read_text(&text).map(drop), documents);
        }
        for (key, (row, documents)) in uses.summaries {
            let path = self.layout.summary(&key);
            let checked = MappedSegment::open(&path, &row.sha256).map(drop);
            note(path, checked, documents);
        }
        for (group, row) in self.group_rows()? {
            for (version, adapter) in row.versions {
                for (path, checked) in check_adapter(&self.layout.adapter(&group, version), &group, version, &adapter) {
                    note(path, checked, BTreeSet::new());
                }
            }
        }
        Ok(damages)
    }

    /// Forgets damaged summaries, so that their documents become pending and the segments from
    /// the damage on are compressed again; the segments before are kept. Returns what
    /// [`LocalStore::verify`] found: damaged texts and adapters must be supplied anew.
    ///
    /// # Errors
    /// Only failures of the store itself.
    pub fn repair(&self) -> Result<Vec<Damage>> {
        let guard = self.writing()?;
        let damages = self.verify()?;
        let damaged: BTreeSet<&Path> = damages.iter().map(|damage| damage.path.as_path()).collect();
        let uses = self.uses()?;
        let is_damaged = |key: &Digest| damaged.contains(self.layout.summary(key).as_path());
        self.change(&guard, |tables| {
            for (text, encoder, keys) in &uses.encodings {
                let Some(keep) = keys.iter().position(is_damaged) else { continue };
                tables.truncate_encoding(text, encoder, u32::try_from(keep).unwrap_or(u32::MAX))?;
                for id in uses.texts.get(text).into_iter().flatten() {
                    let Some(mut row) = tables.document(id)? else { continue };
                    if row.contents.text == *text && row.encoder == Some(*encoder) {
                        row.encoder = None;
                        tables.put_document(id, &row)?;
                    }
                }
                if let Some(mut row) = tables.encoding(text, encoder)? {
                    row.users = 0;
                    tables.put_encoding(text, encoder, &row)?;
                }
            }
            tables.touch()
        })?;
        Ok(damages)
    }

    /// Removes files that nothing refers to (left by killed processes) and shrinks the catalogue.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be removed; [`Error::Catalogue`] if readers hold it.
    pub fn compact(&self) -> Result<Swept> {
        let guard = self.writing()?;
        let uses = self.uses()?;
        let texts: BTreeSet<PathBuf> = uses.texts.keys().map(|text| self.layout.text(text)).collect();
        let summaries: BTreeSet<PathBuf> = uses.summaries.keys().map(|key| self.layout.summary(key)).collect();
        let rows = self.group_rows()?;
        let versions = |(group, row): &(String, super::rows::GroupRow)| -> Vec<PathBuf> {
            row.versions.keys().map(|version| self.layout.adapter(group, *version)).collect()
        };
        let adapters: BTreeSet<PathBuf> = rows.iter().flat_map(versions).collect();
        let mut swept = Swept::default();
        for (directory, used) in
            [(self.layout.texts(), texts), (self.layout.summaries(), summaries), (self.layout.adapters(), adapters)]
        {
            for inner in entries(&directory)? {
                refuse_link(&inner)?;
                for path in entries(&inner)? {
                    if !used.contains(&path) {
                        self.disk.remove(&path)?;
                        swept.files += 1;
                    }
                }
            }
        }
        let size = || fs::metadata(self.layout.catalogue()).map_or(0, |data| data.len());
        let before = size();
        self.catalogue.compact()?;
        swept.catalogue_bytes = before.saturating_sub(size());
        drop(guard);
        Ok(swept)
    }

    /// Who needs what, from one state of the catalogue.
    fn uses(&self) -> Result<Uses> {
        self.catalogue.read(|transaction| {
            let mut uses = Uses::default();
            for entry in transaction.open_table(TEXTS)?.iter()? {
                uses.texts.insert(Digest::from(*entry?.0.value()), BTreeSet::new());
            }
            for entry in transaction.open_table(SUMMARIES)?.iter()? {
                let (key, row) = entry?;
                let row = serde_json::from_slice(row.value())?;
                uses.summaries.insert(Digest::from(*key.value()), (row, BTreeSet::new()));
            }
            for (id, row) in Self::document_rows(transaction, None)? {
                for contents in std::iter::once(&row.contents).chain(&row.staged) {
                    uses.texts.entry(contents.text).or_default().insert(id.clone());
                }
            }
            let segments = transaction.open_table(SEGMENTS)?;
            for entry in transaction.open_table(ENCODINGS)?.iter()? {
                let entry = entry?;
                let (text, encoder) = entry.0.value();
                let (text, encoder) = (Digest::from(*text), Digest::from(*encoder));
                let keys = segment_keys(&segments, &text, &encoder)?;
                for key in &keys {
                    if let Some((_, documents)) = uses.summaries.get_mut(key) {
                        documents.extend(uses.texts.get(&text).into_iter().flatten().cloned());
                    }
                }
                uses.encodings.push((text, encoder, keys));
            }
            Ok(uses)
        })
    }
}

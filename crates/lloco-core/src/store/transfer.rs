//! Taking documents out of a store and into another.
//!
//! An export *is* a store, so that everything that reads stores reads exports. Merging is also how
//! shards that were compressed apart come together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;

use super::Store as _;
use super::adapters::check_adapter;
use super::batch::Batch;
use super::check::Damage;
use super::documents::{DOCUMENTS_AT_ONCE, new_document};
use super::encode::finish_encoding;
use super::encoder::EncoderInfo;
use super::layout::Stamp;
use super::local::LocalStore;
use super::mapped::MappedSegment;
use super::rows::{Contents, SummaryRow};
use super::tables::put;
use super::types::{Document, Summary};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What a merge did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Merged {
    /// Documents that are new here.
    pub added: u64,
    /// Documents that were here already.
    pub unchanged: u64,
    /// Summaries that are new here, of documents new or known.
    pub summaries: u64,
    /// Ids that are taken here by other contents; left as they were.
    pub conflicts: Vec<String>,
    /// Damaged files of the other store. A document without its text was left out, one without
    /// its summary waits here to be compressed.
    pub damaged: Vec<Damage>,
    /// Adapter versions that are new here.
    pub adapters: u64,
}

impl LocalStore {
    /// Takes over the documents of another store that `select` picks, with their finished
    /// summaries, and the adapters of their groups. Repeating it changes nothing.
    ///
    /// What is damaged there is left out and listed; the rest comes over. A document's summary
    /// here, if it has one, stays.
    ///
    /// # Errors
    /// Failures of either store. What was taken over before stays.
    pub fn merge(&self, other: &Self, select: impl Fn(&Document) -> bool) -> Result<Merged> {
        self.merge_from(other, None, &select)
    }

    /// [`LocalStore::merge`], where a summary by this [encoder](EncoderInfo::id) takes the place of
    /// one by another encoder here: how several machines compress a library again.
    ///
    /// # Errors
    /// As [`LocalStore::merge`].
    pub fn merge_encoded(&self, other: &Self, encoder: &Digest, select: impl Fn(&Document) -> bool) -> Result<Merged> {
        self.merge_from(other, Some(encoder), &select)
    }

    fn merge_from(&self, other: &Self, encoder: Option<&Digest>, select: &dyn Fn(&Document) -> bool) -> Result<Merged> {
        let mut merged = Merged::default();
        let documents: Vec<Document> = other.documents(None)?.into_iter().filter(|found| select(found)).collect();
        let mut rest = documents.iter().peekable();
        while rest.peek().is_some() {
            self.take_over(other, encoder, &mut rest, &mut merged)?;
        }
        let conflicts: BTreeSet<&String> = merged.conflicts.iter().collect();
        let groups = documents.iter().filter(|document| !conflicts.contains(&document.id));
        let groups: BTreeSet<&String> = groups.map(|document| &document.group).collect();
        let mut adapters = 0;
        for group in groups {
            adapters += self.take_over_adapters(other, group, &mut merged.damaged)?;
        }
        Ok(Merged { adapters, ..merged })
    }

    /// Writes the documents that `select` picks, with their group's adapters, into a new or
    /// existing store at `path`.
    ///
    /// # Errors
    /// As [`LocalStore::open`] and [`LocalStore::merge`].
    pub fn export(&self, path: impl AsRef<Path>, select: impl Fn(&Document) -> bool) -> Result<Merged> {
        Self::open(path)?.merge(self, select)
    }

    /// Writes a document's softprompt as a safetensors file with the tensor `softprompt`,
    /// `[rows, hidden]`, f32: prompt embeddings for any program that takes them.
    ///
    /// # Errors
    /// As [`Store::summary`](super::Store::summary).
    pub fn export_softprompt(&self, id: &str, encoder: &EncoderInfo, path: impl AsRef<Path>) -> Result<()> {
        #[derive(Serialize)]
        struct Label<'a> {
            #[serde(flatten)]
            stamp: Stamp,
            document: &'a str,
            encoder: &'a EncoderInfo,
        }
        let path = path.as_ref();
        let rows = self.summary(id, encoder)?;
        let values: Vec<u8> = rows.data().iter().flat_map(|value| value.to_le_bytes()).collect();
        let label = Label { stamp: Stamp::new("lloco-softprompt"), document: id, encoder };
        let label = HashMap::from([("lloco".to_owned(), serde_json::to_string(&label).unwrap_or_default())]);
        let contents = TensorView::new(Dtype::F32, vec![rows.rows(), rows.hidden()], &values)
            .and_then(|view| safetensors::serialize([("softprompt", view)], Some(label)))
            .map_err(|error| Error::damaged(path, error.to_string()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        self.disk.publish(self.disk.write_aside(parent.unwrap_or(Path::new(".")), &contents)?, path)
    }

    /// Takes over as many documents as fit one batch.
    fn take_over<'d>(
        &self,
        other: &Self,
        encoder: Option<&Digest>,
        documents: &mut impl Iterator<Item = &'d Document>,
        merged: &mut Merged,
    ) -> Result<()> {
        let guard = self.writing()?;
        let mut files = Batch::new(&self.disk, &self.layout);
        let (mut texts, mut summaries) = (BTreeSet::new(), HashMap::new());
        let (mut new, mut finished) = (Vec::new(), Vec::new());
        for document in documents.take(DOCUMENTS_AT_ONCE) {
            let Document { id, text, summary, .. } = document;
            let (contents, known) = (contents_of(document), self.document_row(id)?);
            let wants_summary = match &known {
                Some(row) if *row.latest() != contents => {
                    merged.conflicts.push(id.clone());
                    continue;
                }
                Some(row) => {
                    let theirs = summary.as_ref().map(|summary| summary.encoder.id());
                    let replaces = encoder.is_some() && theirs.as_ref() == encoder && row.encoder != theirs;
                    row.staged.is_some() || row.encoder.is_none() || replaces
                }
                None => true,
            };
            if known.is_some() {
                merged.unchanged += 1;
            } else {
                if !texts.contains(text) && !self.knows_text(text)? {
                    let Some(bytes) = undamaged(other.text(text), document, merged)? else { continue };
                    files.add(self.layout.text(text), bytes.as_bytes())?;
                    texts.insert(*text);
                }
                new.push((id, contents));
                merged.added += 1;
            }
            if let Some(summary) = summary.as_ref().filter(|_| wants_summary) {
                let copied = self.copy_summary(other, summary, &mut summaries, &mut files);
                if undamaged(copied, document, merged)?.is_some() {
                    finished.push((document, summary));
                    merged.summaries += 1;
                }
            }
            if files.is_full() {
                break;
            }
        }
        if new.is_empty() && finished.is_empty() {
            return Ok(());
        }
        files.publish()?;
        self.change(&guard, |tables| {
            new.into_iter().try_for_each(|(id, contents)| new_document(tables, id, contents))?;
            finished.into_iter().try_for_each(|(Document { id, text, .. }, summary)| {
                let encoder = summary.encoder.id();
                put(&mut tables.encoders, encoder.bytes(), &summary.encoder)?;
                finish_encoding(tables, id, (text, &encoder), summary.tokens, &summary.segments, &summaries)
            })
        })
    }

    /// Makes sure that a summary's files are here or in the batch, whose rows go into `rows`.
    fn copy_summary(
        &self,
        other: &Self,
        summary: &Summary,
        rows: &mut HashMap<Digest, SummaryRow>,
        files: &mut Batch<'_>,
    ) -> Result<()> {
        for key in &summary.segments {
            if rows.contains_key(key) || self.summary_row(key)?.is_some() {
                continue;
            }
            let path = other.layout.summary(key);
            let row = other.summary_row(key)?;
            let row = row.ok_or_else(|| Error::damaged(&path, "it is not in the catalogue"))?;
            files.add(self.layout.summary(key), MappedSegment::open(&path, &row.sha256)?.bytes())?;
            rows.insert(*key, SummaryRow { users: 0, ..row });
        }
        Ok(())
    }

    /// Takes over a group's adapter versions, oldest first, and which is current if none was.
    fn take_over_adapters(&self, other: &Self, group: &str, damaged: &mut Vec<Damage>) -> Result<u64> {
        let Some(theirs) = other.group_row(group)? else { return Ok(0) };
        let had_adapter = self.group_row(group)?.is_some_and(|row| row.current.is_some());
        let ours = |files: &BTreeMap<String, Digest>| -> Result<Option<u32>> {
            let row = self.group_row(group)?.unwrap_or_default();
            Ok(row.versions.iter().find(|(_, version)| version.files == *files).map(|(number, _)| *number))
        };
        let before = self.group_row(group)?.and_then(|row| row.current);
        let mut added = 0;
        for (number, version) in &theirs.versions {
            if ours(&version.files)?.is_some() {
                continue;
            }
            let directory = other.layout.adapter(group, *number);
            let mut checked = check_adapter(&directory, group, *number, version).into_iter();
            match checked.find_map(|(path, checked)| Some((path, checked.err()?))) {
                None => {
                    self.put_adapter(group, &directory)?;
                    added += 1;
                }
                Some((path, Error::Damaged { reason, .. })) => {
                    damaged.push(Damage { path, reason, documents: Vec::new() });
                }
                Some((_, error)) => return Err(error),
            }
        }
        let current = match (had_adapter, theirs.current.and_then(|number| theirs.versions.get(&number))) {
            (false, Some(version)) => ours(&version.files)?,
            _ => before,
        };
        if let Some(current) = current.filter(|_| added > 0) {
            self.set_adapter(group, Some(current))?;
        }
        Ok(added)
    }
}

/// A document's shown contents as a row has them.
fn contents_of(document: &Document) -> Contents {
    let Document { group, title, text, text_bytes, .. } = document;
    Contents { group: group.clone(), title: title.clone(), text: *text, bytes: *text_bytes }
}

/// Notes damage and goes on; other failures stay failures.
fn undamaged<T>(outcome: Result<T>, document: &Document, merged: &mut Merged) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Damaged { path, reason }) => {
            merged.damaged.push(Damage { path, reason, documents: vec![document.id.clone()] });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

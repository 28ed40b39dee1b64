//! Taking documents out of a store and into another.
//!
//! An export *is* a store, so that everything that reads stores reads exports. Merging is also how
//! shards that were compressed apart come together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::Store as _;
use super::blob::Blob;
use super::layout::Stamp;
use super::local::LocalStore;
use super::rows::{EncodingRow, SummaryRow};
use super::tables::{get, put};
use super::types::{Document, EncoderInfo, NewDocument, Summary};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What a merge did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Merged {
    /// Documents that are new here.
    pub added: u64,
    /// Documents that were here already.
    pub unchanged: u64,
    /// Ids that are taken here by other contents; left as they were.
    pub conflicts: Vec<String>,
    /// Adapter versions that are new here.
    pub adapters: u64,
}

impl LocalStore {
    /// Takes over the documents of another store that `select` picks, with their finished
    /// summaries, and the adapters of their groups. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a file of the other store is; what was taken over before stays.
    pub fn merge(&self, other: &Self, select: impl Fn(&Document) -> bool) -> Result<Merged> {
        let mut merged = Merged::default();
        let mut groups = BTreeSet::new();
        for document in other.documents(None)?.into_iter().filter(select) {
            let text = other.text(&document.text)?;
            let new = NewDocument::new(&document.id, &text).group(&document.group).title(&document.title);
            let known = self.document(&document.id)?.is_some();
            match self.add(&new) {
                Ok(_) if known => merged.unchanged += 1,
                Ok(_) => merged.added += 1,
                Err(Error::DocumentExists { id }) => {
                    merged.conflicts.push(id);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if let Some(summary) = &document.summary {
                self.take_over(other, &document, summary)?;
            }
            groups.insert(document.group);
        }
        for group in groups {
            merged.adapters += self.take_over_adapters(other, &group)?;
        }
        Ok(merged)
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
        #[derive(serde::Serialize)]
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

    /// Copies a finished summary and shows it.
    fn take_over(&self, other: &Self, document: &Document, summary: &Summary) -> Result<()> {
        let (text, encoder) = (&document.text, summary.encoder.id());
        let guard = self.writing()?;
        let Some(row) = self.document_row(&document.id)? else { return Ok(()) };
        if row.encoder.is_some() || row.contents.text != *text {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(summary.segments.len());
        for key in &summary.segments {
            rows.push(self.copy_summary(other, key)?);
        }
        let segments = u32::try_from(summary.segments.len()).unwrap_or(u32::MAX);
        self.change(&guard, |tables| {
            let Some(mut row) = tables.document(&document.id)? else { return Ok(()) };
            put(&mut tables.encoders, encoder.bytes(), &summary.encoder)?;
            let begun = tables.encoding(text, &encoder)?;
            let done = begun.as_ref().map_or(0, |begun| begun.done);
            if begun.is_none() {
                let begun = EncodingRow { tokens: summary.tokens, segments, done: 0, users: 0 };
                tables.put_encoding(text, &encoder, &begun)?;
            }
            for (key, copied) in summary.segments.iter().zip(rows).skip(done as usize) {
                let summary = get(&tables.summaries, key.bytes())?.unwrap_or(copied);
                tables.add_segment((text, &encoder), key, summary)?;
            }
            tables.use_encoding(text, &encoder)?;
            row.encoder = Some(encoder);
            tables.touch()?;
            tables.put_document(&document.id, &row)
        })
    }

    /// Makes sure that a summary file is here, and gives its row.
    fn copy_summary(&self, other: &Self, key: &Digest) -> Result<SummaryRow> {
        if let Some(row) = self.summary_row(key)? {
            return Ok(row);
        }
        let path = other.layout.summary(key);
        let row = other.summary_row(key)?;
        let row = row.ok_or_else(|| Error::damaged(&path, "it is not in the catalogue"))?;
        let blob = Blob::open(&path, &row.sha256)?;
        let target = self.layout.summary(key);
        if let Some(parent) = target.parent() {
            self.disk.create_directory(parent)?;
        }
        self.disk.publish(self.disk.write_aside(&self.layout.aside(), blob.bytes())?, &target)?;
        Ok(SummaryRow { users: 0, ..row })
    }

    /// Takes over a group's adapter versions, oldest first, and which is current if none was.
    fn take_over_adapters(&self, other: &Self, group: &str) -> Result<u64> {
        let Some(theirs) = other.group_row(group)? else { return Ok(0) };
        let had_adapter = self.group_row(group)?.is_some_and(|row| row.current.is_some());
        let ours = |files: &BTreeMap<String, Digest>| -> Result<Option<u32>> {
            let row = self.group_row(group)?.unwrap_or_default();
            Ok(row.versions.iter().find(|(_, version)| version.files == *files).map(|(number, _)| *number))
        };
        let before = self.group_row(group)?.and_then(|row| row.current);
        let mut added = 0;
        for (number, version) in &theirs.versions {
            if ours(&version.files)?.is_none() {
                self.put_adapter(group, &other.layout.adapter(group, *number))?;
                added += 1;
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

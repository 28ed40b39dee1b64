//! Documents: adding, replacing, removing, reading.

use std::fs;

use redb::{ReadTransaction, ReadableTable as _};

use super::EncoderInfo;
use super::catalogue::Failure;
use super::layout::check_name;
use super::local::{LocalStore, now};
use super::rows::{
    Contents, DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, GROUPS, GroupRow, MEMBERS, SEGMENTS, TEXTS,
};
use super::tables::{Tables, get, segment_keys};
use super::types::{Document, Group, NewDocument, Pending, Shard, Staged, Summary};
use crate::digest::Digest;
use crate::error::{Error, Result};

impl LocalStore {
    pub(super) fn add_document(&self, document: &NewDocument<'_>) -> Result<Document> {
        let contents = contents(document)?;
        let guard = self.writing()?;
        let known = |row: &DocumentRow| match *row.latest() == contents {
            true => Ok(()),
            false => Err(Error::DocumentExists { id: document.id.into() }),
        };
        match self.document_row(document.id)? {
            Some(row) => known(&row)?,
            None => {
                self.write_text(&contents.text, document.text)?;
                self.change(&guard, |tables| new_document(tables, document.id, contents))?;
            }
        }
        self.expect_document(document.id)
    }

    pub(super) fn replace_document(&self, document: &NewDocument<'_>) -> Result<Document> {
        let (id, contents) = (document.id, contents(document)?);
        let guard = self.writing()?;
        if self.document_row(id)?.is_some_and(|row| *row.latest() == contents) {
            return self.expect_document(id);
        }
        self.write_text(&contents.text, document.text)?;
        self.change(&guard, |tables| {
            let Some(mut row) = tables.document(id)? else { return new_document(tables, id, contents) };
            if let Some(staged) = row.staged.take() {
                tables.release_text(&staged.text)?;
            }
            if contents.text != row.contents.text {
                // Readers keep what they have until the new text is compressed, and segments
                // that were compressed already stay for it to begin with.
                tables.use_text(&contents)?;
                row.staged = Some(contents);
            } else {
                show(tables, id, &mut row, contents)?;
                tables.touch()?;
            }
            tables.put_document(id, &row)
        })?;
        self.expect_document(id)
    }

    pub(super) fn remove_document(&self, id: &str) -> Result<bool> {
        let guard = self.writing()?;
        if self.document_row(id)?.is_none() {
            return Ok(false);
        }
        self.change(&guard, |tables| {
            let Some(row) = tables.document(id)? else { return Ok(false) };
            tables.documents.remove(id)?;
            tables.leave(&row.contents.group, id)?;
            if let Some(encoder) = &row.encoder {
                tables.release_encoding(&row.contents.text, encoder)?;
            }
            tables.release_text(&row.contents.text)?;
            if let Some(staged) = &row.staged {
                tables.release_text(&staged.text)?;
            }
            tables.touch()?;
            Ok(true)
        })
    }

    pub(super) fn read_document(&self, id: &str) -> Result<Option<Document>> {
        self.catalogue.read(|transaction| {
            let reader = Reader::open(transaction)?;
            let row = get(&transaction.open_table(DOCUMENTS)?, id)?;
            row.map(|row| reader.document(id, row)).transpose()
        })
    }

    pub(super) fn expect_document(&self, id: &str) -> Result<Document> {
        self.read_document(id)?.ok_or_else(|| Error::DocumentNotFound { id: id.into() })
    }

    pub(super) fn document_row(&self, id: &str) -> Result<Option<DocumentRow>> {
        self.catalogue.read(|transaction| get(&transaction.open_table(DOCUMENTS)?, id))
    }

    /// Every document's row, or those of a group, ordered by id.
    pub(super) fn document_rows(
        transaction: &ReadTransaction,
        group: Option<&str>,
    ) -> Result<Vec<(String, DocumentRow)>, Failure> {
        let documents = transaction.open_table(DOCUMENTS)?;
        let mut rows = Vec::new();
        match group {
            None => {
                for entry in documents.iter()? {
                    let (id, row) = entry?;
                    rows.push((id.value().to_owned(), serde_json::from_slice(row.value())?));
                }
            }
            Some(group) => {
                for id in transaction.open_multimap_table(MEMBERS)?.get(group)? {
                    let id = id?.value().to_owned();
                    if let Some(row) = get(&documents, id.as_str())? {
                        rows.push((id, row));
                    }
                }
            }
        }
        Ok(rows)
    }

    pub(super) fn read_documents(&self, group: Option<&str>) -> Result<Vec<Document>> {
        self.catalogue.read(|transaction| {
            let reader = Reader::open(transaction)?;
            let rows = Self::document_rows(transaction, group)?;
            rows.into_iter().map(|(id, row)| reader.document(&id, row)).collect()
        })
    }

    pub(super) fn read_pending(&self, encoder: &EncoderInfo, shard: Shard) -> Result<Vec<Pending>> {
        let encoder = encoder.id();
        let rows = self.catalogue.read(|transaction| Self::document_rows(transaction, None))?;
        let waits = |row: &DocumentRow| row.staged.is_some() || row.encoder != Some(encoder);
        let waiting = rows.into_iter().filter(|(_, row)| waits(row) && shard.contains(&row.latest().text));
        Ok(waiting.map(|(id, row)| Pending { id, text: row.latest().text, text_bytes: row.latest().bytes }).collect())
    }

    pub(super) fn read_groups(&self) -> Result<Vec<Group>> {
        self.catalogue.read(|transaction| {
            let members = transaction.open_multimap_table(MEMBERS)?;
            let mut groups = Vec::new();
            for entry in transaction.open_table(GROUPS)?.iter()? {
                let (name, row) = entry?;
                let row: GroupRow = serde_json::from_slice(row.value())?;
                groups.push(Group {
                    name: name.value().into(),
                    documents: members.get(name.value())?.len(),
                    adapter: row.current,
                    versions: row.versions.into_keys().collect(),
                });
            }
            Ok(groups)
        })
    }

    /// Makes a text's file durable, unless it is there already.
    pub(super) fn write_text(&self, digest: &Digest, text: &str) -> Result<()> {
        let known = self.catalogue.read(|transaction| {
            let texts = transaction.open_table(TEXTS)?;
            Ok(texts.get(digest.bytes())?.is_some())
        })?;
        if known {
            return Ok(());
        }
        let path = self.layout.text(digest);
        let file = self.disk.write_aside(&self.layout.aside(), text.as_bytes())?;
        if let Some(parent) = path.parent() {
            self.disk.create_directory(parent)?;
        }
        self.disk.publish(file, &path)
    }

    pub(super) fn read_text(&self, digest: &Digest) -> Result<String> {
        let path = self.layout.text(digest);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::damaged(&path, "it is missing"),
            _ => Error::io("read", &path, error),
        })?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::checksum(&path, digest, &found));
        }
        String::from_utf8(bytes).map_err(|error| Error::damaged(&path, error.to_string()))
    }
}

/// Checks a document and takes its digest.
fn contents(document: &NewDocument<'_>) -> Result<Contents> {
    check_name("document id", document.id)?;
    check_name("group", document.group)?;
    if document.text.is_empty() {
        return Err(Error::EmptyText { id: document.id.into() });
    }
    Ok(Contents {
        group: document.group.into(),
        title: document.title.into(),
        text: Digest::of(document.text.as_bytes()),
        bytes: document.text.len() as u64,
    })
}

fn new_document(tables: &mut Tables<'_>, id: &str, contents: Contents) -> Result<(), Failure> {
    tables.use_text(&contents)?;
    tables.join(&contents.group, id)?;
    tables.touch()?;
    tables.put_document(id, &DocumentRow { created: now(), contents, encoder: None, staged: None })
}

/// Gives a document other contents at once. Its encoding, if any, is of the same text.
pub(super) fn show(
    tables: &mut Tables<'_>,
    id: &str,
    row: &mut DocumentRow,
    contents: Contents,
) -> Result<(), Failure> {
    tables.use_text(&contents)?;
    if row.contents.group != contents.group {
        tables.leave(&row.contents.group, id)?;
        tables.join(&contents.group, id)?;
    }
    let old = std::mem::replace(&mut row.contents, contents);
    tables.release_text(&old.text)
}

type Rows<K> = redb::ReadOnlyTable<K, &'static [u8]>;
type Hash = &'static [u8; 32];

/// Puts documents together from the tables of one state.
struct Reader {
    encoders: Rows<Hash>,
    encodings: Rows<(Hash, Hash)>,
    segments: Rows<(Hash, Hash, u32)>,
}

impl Reader {
    fn open(transaction: &ReadTransaction) -> Result<Self, Failure> {
        Ok(Self {
            encoders: transaction.open_table(ENCODERS)?,
            encodings: transaction.open_table(ENCODINGS)?,
            segments: transaction.open_table(SEGMENTS)?,
        })
    }

    fn document(&self, id: &str, row: DocumentRow) -> Result<Document, Failure> {
        let Contents { group, title, text, bytes } = row.contents;
        let summary = row.encoder.map(|encoder| self.summary(&text, &encoder)).transpose()?.flatten();
        let staged = row.staged.map(|staged| {
            let Contents { group, title, text, bytes } = staged;
            Staged { group, title, text, text_bytes: bytes }
        });
        Ok(Document { id: id.into(), group, title, text, text_bytes: bytes, created: row.created, summary, staged })
    }

    fn summary(&self, text: &Digest, encoder: &Digest) -> Result<Option<Summary>, Failure> {
        let info: Option<EncoderInfo> = get(&self.encoders, encoder.bytes())?;
        let row: Option<EncodingRow> = get(&self.encodings, (text.bytes(), encoder.bytes()))?;
        let (Some(info), Some(row)) = (info, row) else { return Ok(None) };
        let segments = segment_keys(&self.segments, text, encoder)?;
        Ok(Some(Summary { encoder: info, tokens: row.tokens, segments }))
    }
}

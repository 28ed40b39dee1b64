//! Documents: adding, replacing, removing, reading.

use std::collections::BTreeSet;
use std::fs;

use redb::{ReadTransaction, ReadableTable as _};

use super::EncoderInfo;
use super::batch::Batch;
use super::catalogue::Failure;
use super::local::{LocalStore, now};
use super::rows::{
    Contents, DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, GROUPS, GroupRow, MEMBERS, META, SEGMENTS,
    TEXTS,
};
use super::tables::{Tables, get, segment_keys};
use super::types::{Document, Group, NewDocument, Pending, Shard, Staged, Summary};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Most documents that one transaction takes.
pub(super) const DOCUMENTS_AT_ONCE: usize = 1024;

/// What a search needs to know of a document.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) group: String,
    /// The text that readers see.
    pub(crate) text: Digest,
    pub(crate) compressed: bool,
}

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
                if !self.knows_text(&contents.text)? {
                    let mut files = Batch::new(&self.disk, &self.layout);
                    files.add(self.layout.text(&contents.text), document.text.as_bytes())?;
                    files.publish()?;
                }
                self.change(&guard, |tables| new_document(tables, document.id, contents))?;
            }
        }
        self.expect_document(document.id)
    }

    pub(super) fn replace_documents(&self, documents: &[NewDocument<'_>]) -> Result<Vec<Document>> {
        let all: Vec<Contents> = documents.iter().map(contents).collect::<Result<_>>()?;
        let (mut rest, mut stored) = (documents.iter().zip(all).peekable(), Vec::with_capacity(documents.len()));
        while rest.peek().is_some() {
            let guard = self.writing()?;
            let (mut texts, mut written) = (Batch::new(&self.disk, &self.layout), BTreeSet::new());
            let (mut taken, mut changes) = (Vec::new(), false);
            while !texts.is_full() && taken.len() < DOCUMENTS_AT_ONCE {
                let Some((document, contents)) = rest.next() else { break };
                changes |= self.document_row(document.id)?.is_none_or(|row| *row.latest() != contents);
                if !self.knows_text(&contents.text)? && written.insert(contents.text) {
                    texts.add(self.layout.text(&contents.text), document.text.as_bytes())?;
                }
                stored.push(document.id);
                taken.push((document.id, contents));
            }
            if changes {
                texts.publish()?;
                let put = |tables: &mut Tables<'_>| {
                    taken.into_iter().try_for_each(|(id, contents)| replace_one(tables, id, contents))
                };
                self.change(&guard, put)?;
            }
        }
        stored.into_iter().map(|id| self.expect_document(id)).collect()
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

    /// Every document in brief, and the [revision](LocalStore::revision) of which this is true. Reads one row a
    /// document, where [`Store::documents`](super::Store::documents) reads one a segment.
    pub(crate) fn listed(&self) -> Result<(u64, Vec<Listed>)> {
        self.catalogue.read(|transaction| {
            let revision = transaction.open_table(META)?.get("revision")?.map_or(0, |number| number.value());
            let listed = |(id, row): (String, DocumentRow)| {
                let DocumentRow { contents: Contents { group, text, .. }, encoder, .. } = row;
                Listed { id, group, text, compressed: encoder.is_some() }
            };
            Ok((revision, Self::document_rows(transaction, None)?.into_iter().map(listed).collect()))
        })
    }

    pub(super) fn read_pending(&self, encoder: &EncoderInfo, shard: Shard) -> Result<Vec<Pending>> {
        let encoder = encoder.id();
        let rows = self.catalogue.read(|transaction| Self::document_rows(transaction, None))?;
        let waits = |row: &DocumentRow| row.staged.is_some() || row.encoder != Some(encoder);
        let waiting = rows.into_iter().filter(|(_, row)| waits(row) && shard.contains(&row.latest().text));
        let pending = |(id, row): (String, DocumentRow)| {
            let (text, bytes) = (row.latest().text, row.latest().bytes);
            Pending { id, text, text_bytes: bytes, stale: row.staged.is_none() && row.encoder.is_some() }
        };
        Ok(waiting.map(pending).collect())
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

    /// Whether a text's file is there.
    pub(super) fn knows_text(&self, digest: &Digest) -> Result<bool> {
        self.catalogue.read(|transaction| Ok(transaction.open_table(TEXTS)?.get(digest.bytes())?.is_some()))
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

/// Gives a document new contents, or adds it.
fn replace_one(tables: &mut Tables<'_>, id: &str, contents: Contents) -> Result<(), Failure> {
    let Some(mut row) = tables.document(id)? else { return new_document(tables, id, contents) };
    if *row.latest() == contents {
        return Ok(());
    }
    if let Some(staged) = row.staged.take() {
        tables.release_text(&staged.text)?;
    }
    if contents.text != row.contents.text {
        // Readers keep what they have until the new text is compressed, and segments that were
        // compressed already stay for it to begin with.
        tables.use_text(&contents)?;
        row.staged = Some(contents);
    } else {
        show(tables, id, &mut row, contents)?;
        tables.touch()?;
    }
    tables.put_document(id, &row)
}

/// Checks a document and takes its digest.
pub(super) fn contents(document: &NewDocument<'_>) -> Result<Contents> {
    document.check()?;
    Ok(Contents {
        group: document.group.into(),
        title: document.title.into(),
        text: Digest::of(document.text.as_bytes()),
        bytes: document.text.len() as u64,
    })
}

pub(super) fn new_document(tables: &mut Tables<'_>, id: &str, contents: Contents) -> Result<(), Failure> {
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

//! The catalogue's tables inside one transaction, and the counting of users.
//!
//! Texts, encodings and summaries are shared. Each counts its users and goes when the last one
//! does; the files it leaves are removed after the transaction has been committed.

use std::borrow::Borrow;
use std::path::PathBuf;

use redb::{Key, MultimapTable, ReadableMultimapTable as _, ReadableTable, Table, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::catalogue::Failure;
use super::layout::Layout;
use super::rows::{
    Contents, DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, GROUPS, GroupRow, MEMBERS, META, SEGMENTS,
    SUMMARIES, SegmentRow, SummaryRow, TEXTS, TextRow,
};
use crate::digest::Digest;

type Json = &'static [u8];
type Hash = &'static [u8; 32];

/// Reads a row.
pub(super) fn get<'k, K: Key + 'static, T: DeserializeOwned>(
    table: &impl ReadableTable<K, Json>,
    key: impl Borrow<K::SelfType<'k>>,
) -> Result<Option<T>, Failure> {
    match table.get(key)? {
        Some(row) => Ok(Some(serde_json::from_slice(row.value())?)),
        None => Ok(None),
    }
}

/// Writes a row.
pub(super) fn put<'k, K: Key + 'static>(
    table: &mut Table<'_, K, Json>,
    key: impl Borrow<K::SelfType<'k>>,
    row: &impl Serialize,
) -> Result<(), Failure> {
    table.insert(key, serde_json::to_vec(row)?.as_slice())?;
    Ok(())
}

/// Files without users, to be removed once the transaction is committed.
#[derive(Default)]
pub(super) struct Dead {
    texts: Vec<Digest>,
    summaries: Vec<Digest>,
}

impl Dead {
    pub(super) fn paths(&self, layout: &Layout) -> Vec<PathBuf> {
        let texts = self.texts.iter().map(|text| layout.text(text));
        texts.chain(self.summaries.iter().map(|key| layout.summary(key))).collect()
    }
}

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) documents: Table<'t, &'static str, Json>,
    pub(super) members: MultimapTable<'t, &'static str, &'static str>,
    pub(super) groups: Table<'t, &'static str, Json>,
    pub(super) texts: Table<'t, Hash, Json>,
    pub(super) encoders: Table<'t, Hash, Json>,
    pub(super) encodings: Table<'t, (Hash, Hash), Json>,
    pub(super) segments: Table<'t, (Hash, Hash, u32), Json>,
    pub(super) summaries: Table<'t, Hash, Json>,
    dead: Dead,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            documents: transaction.open_table(DOCUMENTS)?,
            members: transaction.open_multimap_table(MEMBERS)?,
            groups: transaction.open_table(GROUPS)?,
            texts: transaction.open_table(TEXTS)?,
            encoders: transaction.open_table(ENCODERS)?,
            encodings: transaction.open_table(ENCODINGS)?,
            segments: transaction.open_table(SEGMENTS)?,
            summaries: transaction.open_table(SUMMARIES)?,
            dead: Dead::default(),
        })
    }

    /// The files that nobody uses any more, but for those that found a new user meanwhile.
    pub(super) fn finish(self) -> Result<Dead, Failure> {
        let mut dead = Dead::default();
        for text in self.dead.texts {
            if self.texts.get(text.bytes())?.is_none() {
                dead.texts.push(text);
            }
        }
        for key in self.dead.summaries {
            if self.summaries.get(key.bytes())?.is_none() {
                dead.summaries.push(key);
            }
        }
        Ok(dead)
    }

    /// Notes that what readers see of documents changes.
    pub(super) fn touch(&mut self) -> Result<(), Failure> {
        let revision = self.meta.get("revision")?.map_or(0, |number| number.value());
        self.meta.insert("revision", revision + 1)?;
        Ok(())
    }

    pub(super) fn document(&self, id: &str) -> Result<Option<DocumentRow>, Failure> {
        get(&self.documents, id)
    }

    pub(super) fn put_document(&mut self, id: &str, row: &DocumentRow) -> Result<(), Failure> {
        put(&mut self.documents, id, row)
    }

    /// Puts a document into a group, which comes to exist if it did not.
    pub(super) fn join(&mut self, group: &str, id: &str) -> Result<(), Failure> {
        self.members.insert(group, id)?;
        if self.groups.get(group)?.is_none() {
            put(&mut self.groups, group, &GroupRow::default())?;
        }
        Ok(())
    }

    /// Takes a document out of a group, which goes if nothing is left in it.
    pub(super) fn leave(&mut self, group: &str, id: &str) -> Result<(), Failure> {
        self.members.remove(group, id)?;
        let row: Option<GroupRow> = get(&self.groups, group)?;
        if self.members.get(group)?.is_empty() && row.is_none_or(|row| row.versions.is_empty()) {
            self.groups.remove(group)?;
        }
        Ok(())
    }

    pub(super) fn use_text(&mut self, contents: &Contents) -> Result<(), Failure> {
        let key = contents.text.bytes();
        let mut row: TextRow = get(&self.texts, key)?.unwrap_or(TextRow { bytes: contents.bytes, users: 0 });
        row.users += 1;
        put(&mut self.texts, key, &row)
    }

    pub(super) fn release_text(&mut self, text: &Digest) -> Result<(), Failure> {
        let Some(mut row) = get::<_, TextRow>(&self.texts, text.bytes())? else { return Ok(()) };
        row.users = row.users.saturating_sub(1);
        if row.users > 0 {
            return put(&mut self.texts, text.bytes(), &row);
        }
        self.texts.remove(text.bytes())?;
        self.dead.texts.push(*text);
        let range = (text.bytes(), &[0; 32])..=(text.bytes(), &[0xff; 32]);
        let encodings = self.encodings.range(range)?.map(|row| Ok(Digest::from(*row?.0.value().1)));
        let encodings: Vec<Digest> = encodings.collect::<Result<_, Failure>>()?;
        encodings.iter().try_for_each(|encoder| self.drop_encoding(text, encoder).map(drop))
    }

    pub(super) fn encoding(&self, text: &Digest, encoder: &Digest) -> Result<Option<EncodingRow>, Failure> {
        get(&self.encodings, (text.bytes(), encoder.bytes()))
    }

    pub(super) fn put_encoding(&mut self, text: &Digest, encoder: &Digest, row: &EncodingRow) -> Result<(), Failure> {
        put(&mut self.encodings, (text.bytes(), encoder.bytes()), row)
    }

    pub(super) fn use_encoding(&mut self, text: &Digest, encoder: &Digest) -> Result<(), Failure> {
        let Some(mut row) = self.encoding(text, encoder)? else { return Ok(()) };
        row.users += 1;
        self.put_encoding(text, encoder, &row)
    }

    /// Takes a document from an encoding's users. Without any it stays, as long as its text does.
    pub(super) fn release_encoding(&mut self, text: &Digest, encoder: &Digest) -> Result<(), Failure> {
        let Some(mut row) = self.encoding(text, encoder)? else { return Ok(()) };
        row.users = row.users.saturating_sub(1);
        self.put_encoding(text, encoder, &row)
    }

    /// Removes an encoding, finished or not, with the summaries that only it contains; returns their rows.
    pub(super) fn drop_encoding(&mut self, text: &Digest, encoder: &Digest) -> Result<Vec<SummaryRow>, Failure> {
        let gone = self.truncate_encoding(text, encoder, 0)?;
        self.encodings.remove((text.bytes(), encoder.bytes()))?;
        Ok(gone)
    }

    /// Removes a summary that no encoding contains, and returns its row.
    pub(super) fn drop_unused_summary(&mut self, key: &Digest) -> Result<Option<SummaryRow>, Failure> {
        let row = get::<_, SummaryRow>(&self.summaries, key.bytes())?.filter(|row| row.users == 0);
        if row.is_some() {
            self.summaries.remove(key.bytes())?;
            self.dead.summaries.push(*key);
        }
        Ok(row)
    }

    /// Forgets the segments from number `keep` on; returns the rows of the summaries that went with them.
    pub(super) fn truncate_encoding(
        &mut self,
        text: &Digest,
        encoder: &Digest,
        keep: u32,
    ) -> Result<Vec<SummaryRow>, Failure> {
        let (keys, mut gone) = (self.segment_keys(text, encoder)?, Vec::new());
        for (number, key) in (0_u32..).zip(keys).skip(keep as usize) {
            self.segments.remove((text.bytes(), encoder.bytes(), number))?;
            let Some(mut row) = get::<_, SummaryRow>(&self.summaries, key.bytes())? else { continue };
            row.users = row.users.saturating_sub(1);
            if row.users > 0 {
                put(&mut self.summaries, key.bytes(), &row)?;
            } else {
                self.summaries.remove(key.bytes())?;
                self.dead.summaries.push(key);
                gone.push(row);
            }
        }
        if let Some(mut row) = self.encoding(text, encoder)? {
            row.done = row.done.min(keep);
            self.put_encoding(text, encoder, &row)?;
        }
        Ok(gone)
    }

    pub(super) fn segment_keys(&self, text: &Digest, encoder: &Digest) -> Result<Vec<Digest>, Failure> {
        segment_keys(&self.segments, text, encoder)
    }

    /// Adds the next segment of an encoding.
    pub(super) fn add_segment(
        &mut self,
        (text, encoder): (&Digest, &Digest),
        key: &Digest,
        mut summary: SummaryRow,
    ) -> Result<(), Failure> {
        let Some(mut row) = self.encoding(text, encoder)? else { return Ok(()) };
        put(&mut self.segments, (text.bytes(), encoder.bytes(), row.done), &SegmentRow { key: *key })?;
        row.done += 1;
        self.put_encoding(text, encoder, &row)?;
        summary.users += 1;
        put(&mut self.summaries, key.bytes(), &summary)
    }
}

/// Keys of an encoding's finished segments, in order.
pub(super) fn segment_keys(
    segments: &impl ReadableTable<(Hash, Hash, u32), Json>,
    text: &Digest,
    encoder: &Digest,
) -> Result<Vec<Digest>, Failure> {
    let (text, encoder) = (text.bytes(), encoder.bytes());
    let rows = segments.range((text, encoder, 0)..=(text, encoder, u32::MAX))?;
    rows.map(|row| Ok(serde_json::from_slice::<SegmentRow>(row?.1.value())?.key)).collect()
}

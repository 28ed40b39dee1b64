//! The encoders whose summaries a store holds, and forgetting one of them.
//!
//! A text keeps what every encoder made of it until the text itself goes. So going back to an encoder costs nothing,
//! and what is no longer wanted is forgotten by name.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable as _;
use serde::Serialize;

use super::encoder::EncoderInfo;
use super::local::LocalStore;
use super::map::map;
use super::mapped::find;
use super::rows::{DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, SEGMENTS, SUMMARIES, SummaryRow};
use super::tables::{get, segment_keys};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What a store holds of one encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EncoderUse {
    /// [Stands for](EncoderInfo::id) all its settings.
    pub id: Digest,
    /// The encoder.
    pub encoder: EncoderInfo,
    /// Documents whose readers see its summaries. While there are any, it is not forgotten.
    pub documents: u64,
    /// Texts that it compressed, for readers or kept beside another encoder's.
    pub texts: u64,
    /// Texts that it began to compress.
    pub begun: u64,
    /// Summary files.
    pub summaries: u64,
    /// Bytes of summary files.
    pub bytes: u64,
}

/// What [`LocalStore::forget_encoder`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Forgotten {
    /// Texts that the encoder had compressed, or begun to.
    pub texts: u64,
    /// Summary files.
    pub summaries: u64,
    /// Bytes of summary files.
    pub bytes: u64,
}

impl LocalStore {
    /// The encoders that the store knows, those that most documents show first.
    ///
    /// # Errors
    /// Only failures of the store itself.
    pub fn encoders(&self) -> Result<Vec<EncoderUse>> {
        let mut uses = self.catalogue.read(|transaction| {
            let mut uses = BTreeMap::new();
            for entry in transaction.open_table(ENCODERS)?.iter()? {
                let (id, encoder) = entry?;
                let (id, encoder) = (Digest::from(*id.value()), serde_json::from_slice(encoder.value())?);
                uses.insert(id, EncoderUse { id, encoder, documents: 0, texts: 0, begun: 0, summaries: 0, bytes: 0 });
            }
            for entry in transaction.open_table(DOCUMENTS)?.iter()? {
                let row: DocumentRow = serde_json::from_slice(entry?.1.value())?;
                row.encoder.and_then(|id| uses.get_mut(&id)).into_iter().for_each(|own| own.documents += 1);
            }
            let (segments, summaries) = (transaction.open_table(SEGMENTS)?, transaction.open_table(SUMMARIES)?);
            // Texts that begin alike share summaries.
            let mut counted = BTreeSet::new();
            for entry in transaction.open_table(ENCODINGS)?.iter()? {
                let (key, row) = entry?;
                let (text, encoder) = key.value();
                let (text, encoder) = (Digest::from(*text), Digest::from(*encoder));
                let row: EncodingRow = serde_json::from_slice(row.value())?;
                let Some(own) = uses.get_mut(&encoder) else { continue };
                *(if row.done == row.segments { &mut own.texts } else { &mut own.begun }) += 1;
                for key in segment_keys(&segments, &text, &encoder)? {
                    let row: Option<SummaryRow> = get(&summaries, key.bytes())?;
                    if let Some(row) = row.filter(|row| row.users == 1 || counted.insert(key)) {
                        own.summaries += 1;
                        own.bytes += row.bytes;
                    }
                }
            }
            Ok(uses.into_values().collect::<Vec<_>>())
        })?;
        uses.sort_by_key(|own| (std::cmp::Reverse(own.documents), own.id));
        Ok(uses)
    }

    /// Removes the summaries of an encoder that no document shows any more: those kept when the documents were
    /// compressed again by another one, those of a compression that was given up, and those that
    /// [`recover`](LocalStore::recover) found and no text took. Of an encoder that the store does not know, that is
    /// nothing.
    ///
    /// # Errors
    /// [`Error::EncoderInUse`] while documents show its summaries.
    pub fn forget_encoder(&self, encoder: &Digest) -> Result<Forgotten> {
        let guard = self.writing()?;
        let unused = self.unused_summaries(encoder)?;
        self.change(&guard, |tables| {
            let mut documents = 0;
            for entry in tables.documents.iter()? {
                let row: DocumentRow = serde_json::from_slice(entry?.1.value())?;
                documents += u64::from(row.encoder.as_ref() == Some(encoder));
            }
            if documents > 0 {
                return Err(Error::EncoderInUse { encoder: *encoder, documents }.into());
            }
            let mut texts = Vec::new();
            for entry in tables.encodings.iter()? {
                let key = entry?.0;
                let (text, of) = key.value();
                texts.extend((of == encoder.bytes()).then(|| Digest::from(*text)));
            }
            let mut forgotten = Forgotten { texts: texts.len() as u64, ..Forgotten::default() };
            let mut gone = |row: SummaryRow| {
                forgotten.summaries += 1;
                forgotten.bytes += row.bytes;
            };
            for text in texts {
                tables.drop_encoding(&text, encoder)?.into_iter().for_each(&mut gone);
            }
            for key in unused {
                tables.drop_unused_summary(&key)?.into_iter().for_each(&mut gone);
            }
            tables.encoders.remove(encoder.bytes())?;
            Ok(forgotten)
        })
    }

    /// Summaries that no text contains and that say that they are of this encoder.
    fn unused_summaries(&self, encoder: &Digest) -> Result<Vec<Digest>> {
        let unused = self.catalogue.read(|transaction| {
            let mut unused = Vec::new();
            for entry in transaction.open_table(SUMMARIES)?.iter()? {
                let (key, row) = entry?;
                let row: SummaryRow = serde_json::from_slice(row.value())?;
                unused.extend((row.users == 0).then(|| Digest::from(*key.value())));
            }
            Ok(unused)
        })?;
        let is_own = |key: &Digest| {
            let path = self.layout.summary(key);
            // A damaged one stays, for `verify` to name.
            map(&path).and_then(|bytes| find(&bytes, &path)).is_ok_and(|found| found.encoder.id() == *encoder)
        };
        Ok(unused.into_iter().filter(is_own).collect())
    }
}

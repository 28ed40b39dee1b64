//! Reading summaries back, beside a writer that may remove them.

use super::catalogue::Failure;
use super::encoder::EncoderInfo;
use super::local::LocalStore;
use super::mapped::{MappedSegment, MappedSummary};
use super::precision::SummaryRows;
use super::rows::{DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, META, SEGMENTS, SUMMARIES, SummaryRow};
use super::tables::{get, segment_keys};
use super::types::Encoding;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How often a reader looks again for files that a writer removed.
const TRIES: usize = 16;

/// A summary's key, and its row if it is in the catalogue.
type KeyedRow = (Digest, Option<SummaryRow>);

impl LocalStore {
    /// A document's softprompt as it lies on disk, for readers that need no f32.
    ///
    /// # Errors
    /// As [`Store::summary`](super::Store::summary).
    pub fn mapped(&self, id: &str, encoder: &EncoderInfo) -> Result<MappedSummary> {
        let mut tries = 1;
        loop {
            let (revision, rows) = self.shown(id, encoder)?;
            match self.map_all(&rows) {
                // A writer may have replaced the document, and removed the files, since its rows were read.
                Err(Error::Damaged { .. } | Error::Io { .. }) if tries < TRIES && self.revision()? != revision => {
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    pub(super) fn read_prefix(&self, encoding: &Encoding) -> Result<SummaryRows> {
        let first = if encoding.encoder.keeps_last_only() { encoding.done.saturating_sub(1) } else { 0 };
        let segments = encoding.segments.iter().take(encoding.done).skip(first);
        let keys: Vec<Digest> = segments.map(|segment| segment.key).collect();
        self.map_all(&self.with_rows(&keys)?)?.to_rows()
    }

    /// The summaries that make up a document's softprompt under this encoder, and the store's revision.
    fn shown(&self, id: &str, encoder: &EncoderInfo) -> Result<(u64, Vec<KeyedRow>)> {
        let asked = encoder.id();
        self.catalogue.read(|transaction| {
            let row: Option<DocumentRow> = get(&transaction.open_table(DOCUMENTS)?, id)?;
            let row = row.ok_or_else(|| Error::DocumentNotFound { id: id.into() })?;
            let text = &row.contents.text;
            match row.encoder {
                None => {
                    let encodings = transaction.open_table(ENCODINGS)?;
                    let begun: Option<EncodingRow> = get(&encodings, (text.bytes(), asked.bytes()))?;
                    let (done, total) = begun.map_or((0, 0), |row| (row.done.into(), row.segments.into()));
                    Err(Error::NotCompressed { id: id.into(), done, total }.into())
                }
                Some(stored) if stored != asked => {
                    let stored: Option<EncoderInfo> = get(&transaction.open_table(ENCODERS)?, stored.bytes())?;
                    let stored = stored.map_or_else(|| "unknown".into(), |stored| stored.to_string());
                    Err(Error::EncoderMismatch { id: id.into(), stored, asked: encoder.to_string() }.into())
                }
                Some(_) => {
                    let keys = segment_keys(&transaction.open_table(SEGMENTS)?, text, &asked)?;
                    let first = if encoder.keeps_last_only() { keys.len().saturating_sub(1) } else { 0 };
                    let summaries = transaction.open_table(SUMMARIES)?;
                    let row = |key: Digest| Ok((key, get(&summaries, key.bytes())?));
                    let rows = keys.into_iter().skip(first).map(row).collect::<Result<_, Failure>>()?;
                    let revision = transaction.open_table(META)?.get("revision")?.map_or(0, |number| number.value());
                    Ok((revision, rows))
                }
            }
        })
    }

    pub(super) fn with_rows(&self, keys: &[Digest]) -> Result<Vec<KeyedRow>> {
        keys.iter().map(|key| Ok((*key, self.summary_row(key)?))).collect()
    }

    /// Whether there is a summary of a text's first segment, in whichever document.
    pub(crate) fn has_segment(&self, encoder: &EncoderInfo, first: &[u32]) -> Result<bool> {
        match encoder.segment_keys(&[first]).first() {
            Some(segment) => Ok(self.summary_row(&segment.key)?.is_some()),
            None => Ok(false),
        }
    }

    pub(super) fn summary_row(&self, key: &Digest) -> Result<Option<SummaryRow>> {
        self.catalogue.read(|transaction| get(&transaction.open_table(SUMMARIES)?, key.bytes()))
    }

    pub(super) fn map_all(&self, rows: &[KeyedRow]) -> Result<MappedSummary> {
        let mapped = |(key, row): &KeyedRow| {
            let path = self.layout.summary(key);
            let row = row.as_ref().ok_or_else(|| Error::damaged(&path, "it is not in the catalogue"))?;
            MappedSegment::open(&path, &row.sha256)
        };
        Ok(MappedSummary::new(rows.iter().map(mapped).collect::<Result<_>>()?))
    }
}

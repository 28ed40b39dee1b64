//! Compression as the store sees it: begin, put segments, commit, read.

use redb::ReadableTable as _;

use super::blob::{Blob, serialize};
use super::catalogue::Failure;
use super::documents::show;
use super::local::LocalStore;
use super::precision::SummaryRows;
use super::rows::{DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, SEGMENTS, SUMMARIES, SummaryRow};
use super::tables::{get, put, segment_keys};
use super::types::{Document, EncoderInfo, Encoding, Pending};
use crate::digest::Digest;
use crate::error::{Error, Result};

impl LocalStore {
    pub(super) fn begin_encoding(
        &self,
        work: &Pending,
        encoder: &EncoderInfo,
        segments: &[&[u32]],
    ) -> Result<Encoding> {
        let Pending { id, text, .. } = work;
        if segments.iter().all(|tokens| tokens.is_empty()) {
            return Err(Error::EmptyText { id: id.clone() });
        }
        let (encoder_id, segments) = (encoder.id(), encoder.segment_keys(segments));
        let total = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let tokens = segments.iter().map(|segment| u64::from(segment.tokens)).sum();
        let guard = self.writing()?;
        let done = self.change(&guard, |tables| {
            let row = tables.document(id)?;
            if row.is_none_or(|row| row.latest().text != *text) {
                return Err(Error::Superseded { id: id.clone() }.into());
            }
            if tables.encoders.get(encoder_id.bytes())?.is_none() {
                put(&mut tables.encoders, encoder_id.bytes(), encoder)?;
            }
            let row = tables.encoding(text, &encoder_id)?;
            let mut done = row.as_ref().map_or(0, |row| row.done);
            let known = tables.segment_keys(text, &encoder_id)?;
            let differs = known.iter().zip(&segments).any(|(known, segment)| *known != segment.key);
            if differs || row.as_ref().is_some_and(|row| row.segments != total) {
                return Err(Error::SegmentsDiffer { id: id.clone() }.into());
            }
            if row.is_none() {
                let row = EncodingRow { tokens, segments: total, done: 0, users: 0 };
                tables.put_encoding(text, &encoder_id, &row)?;
            }
            // Summaries that other texts, or an earlier form of this one, left ready.
            for segment in segments.iter().skip(done as usize) {
                let Some(summary) = get::<_, SummaryRow>(&tables.summaries, segment.key.bytes())? else { break };
                tables.add_segment((text, &encoder_id), &segment.key, summary)?;
                done += 1;
            }
            Ok(done as usize)
        })?;
        Ok(Encoding { id: id.clone(), text: *text, encoder: encoder.clone(), segments, done })
    }

    pub(super) fn write_segment(&self, encoding: &mut Encoding, rows: &SummaryRows) -> Result<SummaryRows> {
        let Encoding { id, text, encoder, segments, done } = encoding;
        let total = segments.len();
        let segment = *segments.get(*done).ok_or_else(|| Error::NoSegmentLeft { id: id.clone(), total })?;
        check_shape(encoder, rows)?;
        let (contents, mut rounded) = (serialize(&segment, encoder, rows)?, encoder.precision.round(rows)?);
        let superseded = || Error::Superseded { id: id.clone() };

        let guard = self.writing()?;
        let known = self.summary_row(&segment.key)?;
        let summary = if let Some(known) = known {
            rounded = self.read_rows(&segment.key, &known)?;
            known
        } else {
            let path = self.layout.summary(&segment.key);
            let file = self.disk.write_aside(&self.layout.aside(), &contents)?;
            if let Some(parent) = path.parent() {
                self.disk.create_directory(parent)?;
            }
            self.disk.publish(file, &path)?;
            let rows = u32::try_from(rows.rows()).unwrap_or(u32::MAX);
            SummaryRow { sha256: Digest::of(&contents), bytes: contents.len() as u64, rows, users: 0 }
        };
        self.change(&guard, |tables| {
            let encoder = encoder.id();
            let row = tables.encoding(text, &encoder)?.ok_or_else(superseded)?;
            match (row.done as usize).cmp(done) {
                std::cmp::Ordering::Less => Err(superseded().into()),
                std::cmp::Ordering::Equal => tables.add_segment((text, &encoder), &segment.key, summary),
                // Another thread or an earlier call stored it.
                std::cmp::Ordering::Greater => Ok(()),
            }
        })?;
        *done += 1;
        Ok(rounded)
    }

    pub(super) fn commit_encoding(&self, encoding: &Encoding) -> Result<Document> {
        let Encoding { id, text, encoder, .. } = encoding;
        let encoder = encoder.id();
        let guard = self.writing()?;
        self.change(&guard, |tables| {
            let superseded = || Failure::from(Error::Superseded { id: id.clone() });
            let mut row = tables.document(id)?.ok_or_else(superseded)?;
            let found = tables.encoding(text, &encoder)?.ok_or_else(superseded)?;
            if row.latest().text != *text {
                return Err(superseded());
            }
            if found.done < found.segments {
                let (done, total) = (found.done.into(), found.segments.into());
                return Err(Error::NotCompressed { id: id.clone(), done, total }.into());
            }
            let old = (row.contents.text, row.encoder.replace(encoder));
            if old == (*text, Some(encoder)) {
                return Ok(());
            }
            tables.use_encoding(text, &encoder)?;
            if let (old_text, Some(old_encoder)) = old {
                tables.release_encoding(&old_text, &old_encoder)?;
            }
            if let Some(staged) = row.staged.take() {
                show(tables, id, &mut row, staged)?;
                // Its use as the staged text has ended.
                tables.release_text(text)?;
            }
            tables.touch()?;
            tables.put_document(id, &row)
        })?;
        self.expect_document(id)
    }

    pub(super) fn read_prefix(&self, encoding: &Encoding) -> Result<SummaryRows> {
        let first = if encoding.encoder.keeps_last_only() { encoding.done.saturating_sub(1) } else { 0 };
        let segments = encoding.segments.iter().take(encoding.done).skip(first);
        let keys: Vec<Digest> = segments.map(|segment| segment.key).collect();
        self.read_all(&keys)
    }

    pub(super) fn read_summary(&self, id: &str, encoder: &EncoderInfo) -> Result<SummaryRows> {
        let mut keys = self.shown_keys(id, encoder)?;
        loop {
            match self.read_all(&keys) {
                Err(error @ (Error::Damaged { .. } | Error::Io { .. })) => {
                    // A writer may have replaced the document since its row was read.
                    let again = self.shown_keys(id, encoder)?;
                    if again == keys {
                        return Err(error);
                    }
                    keys = again;
                }
                outcome => return outcome,
            }
        }
    }

    /// Keys of the summaries that make up a document's softprompt under this encoder.
    fn shown_keys(&self, id: &str, encoder: &EncoderInfo) -> Result<Vec<Digest>> {
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
                    Ok(keys.into_iter().skip(first).collect())
                }
            }
        })
    }

    pub(super) fn summary_row(&self, key: &Digest) -> Result<Option<SummaryRow>> {
        self.catalogue.read(|transaction| get(&transaction.open_table(SUMMARIES)?, key.bytes()))
    }

    fn read_rows(&self, key: &Digest, row: &SummaryRow) -> Result<SummaryRows> {
        let path = self.layout.summary(key);
        Blob::open(&path, &row.sha256)?.rows(&path)
    }

    fn read_all(&self, keys: &[Digest]) -> Result<SummaryRows> {
        let mut all = SummaryRows::default();
        for key in keys {
            let row = self.summary_row(key)?;
            let row = row.ok_or_else(|| Error::damaged(&self.layout.summary(key), "it is not in the catalogue"))?;
            all.extend(&self.read_rows(key, &row)?)?;
        }
        Ok(all)
    }
}

fn check_shape(encoder: &EncoderInfo, rows: &SummaryRows) -> Result<()> {
    let EncoderInfo { summary_length, hidden, .. } = *encoder;
    if rows.rows() == 0 || rows.rows() > summary_length as usize || rows.hidden() != hidden as usize {
        let expected = format!("1 to {summary_length} rows of {hidden}");
        let (values, rows, hidden) = (rows.data().len(), rows.rows(), rows.hidden());
        return Err(Error::SummaryShape { rows, hidden, values, expected });
    }
    Ok(())
}

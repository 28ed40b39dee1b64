//! Compression as the store sees it: begin, put segments, commit.

use std::collections::HashMap;

use redb::ReadableTable as _;

use super::batch::Batch;
use super::blob::serialize;
use super::catalogue::Failure;
use super::documents::{DOCUMENTS_AT_ONCE, show};
use super::encoder::EncoderInfo;
use super::local::LocalStore;
use super::precision::SummaryRows;
use super::rows::{EncodingRow, SummaryRow};
use super::tables::{Tables, get, put};
use super::types::{Document, Encoding, NewSummary, Pending};
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
            rounded = self.map_all(&self.with_rows(&[segment.key])?)?.to_rows()?;
            known
        } else {
            let mut file = Batch::new(&self.disk, &self.layout);
            file.add(self.layout.summary(&segment.key), &contents)?;
            file.publish()?;
            new_row(&contents, rows)
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
        let guard = self.writing()?;
        self.change(&guard, |tables| show_encoding(tables, id, text, &encoder.id()))?;
        self.expect_document(id)
    }

    /// Stores whole summaries of several documents: [`Store::begin`], [`Store::put_segment`] and
    /// [`Store::commit`] in one go, many times faster for short documents. For encoders that compress
    /// several documents at a time; a recurrent one must have gone on from the rows as
    /// [`Precision::round`](super::Precision::round) gives them.
    ///
    /// After a failure some of the documents may have their summary.
    ///
    /// [`Store::begin`]: super::Store::begin
    /// [`Store::put_segment`]: super::Store::put_segment
    /// [`Store::commit`]: super::Store::commit
    ///
    /// # Errors
    /// As those three; [`Error::NotCompressed`] if a segment has no rows.
    pub fn put_summaries(&self, encoder: &EncoderInfo, summaries: &[NewSummary<'_>]) -> Result<()> {
        for NewSummary { work, segments, rows } in summaries {
            if segments.iter().all(|tokens| tokens.is_empty()) {
                return Err(Error::EmptyText { id: work.id.clone() });
            }
            if segments.len() != rows.len() {
                let (done, total) = (rows.len() as u64, segments.len() as u64);
                return Err(Error::NotCompressed { id: work.id.clone(), done, total });
            }
            rows.iter().try_for_each(|rows| check_shape(encoder, rows))?;
        }
        let (encoder_id, mut rest) = (encoder.id(), summaries.iter().peekable());
        while rest.peek().is_some() {
            let guard = self.writing()?;
            let (mut files, mut written) = (Batch::new(&self.disk, &self.layout), HashMap::new());
            let mut taken = Vec::new();
            while !files.is_full() && taken.len() < DOCUMENTS_AT_ONCE {
                let Some(NewSummary { work, segments, rows }) = rest.next() else { break };
                let keys = encoder.segment_keys(segments);
                for (segment, rows) in keys.iter().zip(*rows) {
                    if self.summary_row(&segment.key)?.is_none() && !written.contains_key(&segment.key) {
                        let contents = serialize(segment, encoder, rows)?;
                        files.add(self.layout.summary(&segment.key), &contents)?;
                        written.insert(segment.key, new_row(&contents, rows));
                    }
                }
                taken.push((work, keys));
            }
            files.publish()?;
            self.change(&guard, |tables| {
                if tables.encoders.get(encoder_id.bytes())?.is_none() {
                    put(&mut tables.encoders, encoder_id.bytes(), encoder)?;
                }
                taken.iter().try_for_each(|(Pending { id, text, .. }, keys)| {
                    let tokens = keys.iter().map(|segment| u64::from(segment.tokens)).sum();
                    let keys: Vec<Digest> = keys.iter().map(|segment| segment.key).collect();
                    finish_encoding(tables, id, (text, &encoder_id), tokens, &keys, &written)
                })
            })?;
        }
        Ok(())
    }
}

/// The row of a summary that nobody uses yet.
fn new_row(contents: &[u8], rows: &SummaryRows) -> SummaryRow {
    let (sha256, bytes) = (Digest::of(contents), contents.len() as u64);
    SummaryRow { sha256, bytes, rows: u32::try_from(rows.rows()).unwrap_or(u32::MAX), users: 0 }
}

/// Adds the segments that an encoding lacks, and shows it. `new` holds the rows of summaries whose
/// files are there but not in the catalogue.
pub(super) fn finish_encoding(
    tables: &mut Tables<'_>,
    id: &str,
    (text, encoder): (&Digest, &Digest),
    tokens: u64,
    keys: &[Digest],
    new: &HashMap<Digest, SummaryRow>,
) -> Result<(), Failure> {
    let total = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let (begun, known) = (tables.encoding(text, encoder)?, tables.segment_keys(text, encoder)?);
    let differs = known.iter().zip(keys).any(|(known, key)| known != key);
    if differs || begun.as_ref().is_some_and(|row| row.segments != total) {
        return Err(Error::SegmentsDiffer { id: id.into() }.into());
    }
    if begun.is_none() {
        tables.put_encoding(text, encoder, &EncodingRow { tokens, segments: total, done: 0, users: 0 })?;
    }
    for key in keys.iter().skip(known.len()) {
        let row = get(&tables.summaries, key.bytes())?.or_else(|| new.get(key).cloned());
        let row = row.ok_or_else(|| Error::Superseded { id: id.into() })?;
        tables.add_segment((text, encoder), key, row)?;
    }
    show_encoding(tables, id, text, encoder)
}

/// Makes a complete encoding of its newest text what readers see of a document.
fn show_encoding(tables: &mut Tables<'_>, id: &str, text: &Digest, encoder: &Digest) -> Result<(), Failure> {
    let superseded = || Failure::from(Error::Superseded { id: id.into() });
    let mut row = tables.document(id)?.ok_or_else(superseded)?;
    let found = tables.encoding(text, encoder)?.ok_or_else(superseded)?;
    if row.latest().text != *text {
        return Err(superseded());
    }
    if found.done < found.segments {
        return Err(
            Error::NotCompressed { id: id.into(), done: found.done.into(), total: found.segments.into() }.into()
        );
    }
    let old = (row.contents.text, row.encoder.replace(*encoder));
    if old == (*text, Some(*encoder)) {
        return Ok(());
    }
    tables.use_encoding(text, encoder)?;
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

//! Compression as the store sees it: begin, put segments, commit, read.

use std::collections::HashMap;

use redb::ReadableTable as _;

use super::batch::Batch;
use super::blob::serialize;
use super::catalogue::Failure;
use super::documents::{DOCUMENTS_AT_ONCE, show};
use super::local::LocalStore;
use super::mapped::{MappedSegment, MappedSummary};
use super::precision::SummaryRows;
use super::rows::{DOCUMENTS, DocumentRow, ENCODERS, ENCODINGS, EncodingRow, META, SEGMENTS, SUMMARIES, SummaryRow};
use super::tables::{Tables, get, put, segment_keys};
use super::types::{Document, EncoderInfo, Encoding, NewSummary, Pending};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How often a reader looks again for files that a writer removed.
const TRIES: usize = 16;

/// A summary's key, and its row if it is in the catalogue.
type KeyedRow = (Digest, Option<SummaryRow>);

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

    fn with_rows(&self, keys: &[Digest]) -> Result<Vec<KeyedRow>> {
        keys.iter().map(|key| Ok((*key, self.summary_row(key)?))).collect()
    }

    pub(super) fn summary_row(&self, key: &Digest) -> Result<Option<SummaryRow>> {
        self.catalogue.read(|transaction| get(&transaction.open_table(SUMMARIES)?, key.bytes()))
    }

    fn map_all(&self, rows: &[KeyedRow]) -> Result<MappedSummary> {
        let mapped = |(key, row): &KeyedRow| {
            let path = self.layout.summary(key);
            let row = row.as_ref().ok_or_else(|| Error::damaged(&path, "it is not in the catalogue"))?;
            MappedSegment::open(&path, &row.sha256)
        };
        Ok(MappedSummary::new(rows.iter().map(mapped).collect::<Result<_>>()?))
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

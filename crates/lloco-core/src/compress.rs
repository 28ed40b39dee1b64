//! Compression of what waits in the store, as a line of three: while a text becomes summary vectors, the next ones are cut
//! into tokens and the last ones are stored.

use std::{
    collections::HashMap,
    panic,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use burn::tensor::Tensor;

use crate::{
    Error, Event, Lloco, Result,
    ingest::{Added, host},
    store::{Encoding, NewSummary, Pending, Store, SummaryRows},
};

/// Texts, or summaries, that wait between two of the line.
const WAITING: usize = 4;

/// A text that waits to be compressed.
struct Text {
    work: Pending,
    ids: Vec<u32>,
}

/// A document with the summaries of its segments.
struct Compressed {
    text: Text,
    rows: Vec<SummaryRows>,
}

/// What the last of the line is told, in order.
enum Ready {
    /// Whole documents.
    Documents(Vec<Compressed>),
    /// A document is stored segment by segment: asks which of its summaries are there already.
    Begin(Pending, Vec<Vec<u32>>, SyncSender<Encoding>),
    /// The summaries of its next segments, and how many bytes of its text are done with them.
    Segments(Vec<SummaryRows>, u64),
    /// It is complete.
    End,
}

impl Lloco {
    /// Compresses what waits; what another encoder compressed only if asked to.
    pub(crate) fn compress_pending(&self, added: &mut Added, reencode: bool) -> Result<()> {
        let start = Instant::now();
        let pending = self.store.pending(&self.info, self.shard)?;
        let (work, stale): (Vec<Pending>, Vec<Pending>) = pending.into_iter().partition(|item| reencode || !item.stale);
        added.stale = stale.len();
        let total = work.iter().map(|item| item.text_bytes).sum();
        thread::scope(|scope| {
            let (texts, cut) = sync_channel(WAITING);
            scope.spawn(move || self.tokenise(work, &texts));
            let (summaries, ready) = sync_channel(WAITING);
            let stored = scope.spawn(move || self.store_all(&ready, total));
            let compressed = self.compress_all(&cut, &summaries, added);
            drop((cut, summaries));
            // Where storing ended early, the rest ended for want of someone to take it, and this is the reason.
            stored.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))?;
            compressed
        })?;
        added.compressing += start.elapsed();
        Ok(())
    }

    /// Texts as tokens, until there are no more or nobody wants them.
    fn tokenise(&self, work: Vec<Pending>, texts: &SyncSender<Result<Text>>) {
        for work in work {
            let ids = self.store.text(&work.text).and_then(|text| Ok(self.prompts.tokenizer().encode(&text)?));
            if texts.send(ids.map(|ids| Text { work, ids })).is_err() {
                return;
            }
        }
    }

    /// Short texts several at once, others one by one.
    fn compress_all(&self, texts: &Receiver<Result<Text>>, ready: &SyncSender<Ready>, added: &mut Added) -> Result<()> {
        let layout = self.encoder.layout();
        // Where a segment depends on those before it, only a text of one is read with others.
        let most = if layout.recurrent { 1 } else { self.encoder.at_once() } * layout.segment_length;
        let (mut together, mut tokens) = (Vec::new(), 0);
        for text in texts {
            let short = match &text {
                Ok(Text { ids, .. }) => (1..=most).contains(&ids.len()) && !self.begun(ids)?,
                Err(_) => false,
            };
            let len = text.as_ref().map_or(0, |text| text.ids.len());
            if !short || tokens + len > most {
                self.compress_together(std::mem::take(&mut together), ready, added)?;
                tokens = 0;
            }
            match text? {
                text if short => {
                    tokens += len;
                    together.push(text);
                }
                text => self.compress_alone(text, ready, added)?,
            }
        }
        self.compress_together(together, ready, added)
    }

    /// Whether the store has a summary of the first segment already: then it may have more.
    fn begun(&self, ids: &[u32]) -> Result<bool> {
        self.encoder.segments(ids).next().map_or(Ok(false), |first| self.store.has_segment(&self.info, first))
    }

    /// Each segment that occurs in these texts is read once.
    fn compress_together(&self, texts: Vec<Text>, ready: &SyncSender<Ready>, added: &mut Added) -> Result<()> {
        let (mut places, mut distinct) = (HashMap::new(), Vec::new());
        for segment in texts.iter().flat_map(|text| self.encoder.segments(&text.ids)) {
            places.entry(segment).or_insert_with(|| {
                distinct.push(segment);
                distinct.len() - 1
            });
        }
        let summaries = self.encoder.encode_all(&distinct)?;
        let summaries = summaries.into_iter().map(summary_rows).collect::<Result<Vec<_>>>()?;
        let rows = |text: &Text| -> Vec<SummaryRows> {
            let places = self.encoder.segments(&text.ids).filter_map(|segment| places.get(segment));
            places.filter_map(|&place| summaries.get(place).cloned()).collect()
        };
        let rows: Vec<Vec<SummaryRows>> = texts.iter().map(rows).collect();
        added.tokens_read += distinct.iter().map(|segment| segment.len() as u64).sum::<u64>();
        texts.iter().for_each(|text| self.count(text, added));
        if !texts.is_empty() {
            let documents = texts.into_iter().zip(rows).map(|(text, rows)| Compressed { text, rows });
            hand(ready, Ready::Documents(documents.collect()))?;
        }
        Ok(())
    }

    /// Segment by segment, from the first on whose summary is not there.
    fn compress_alone(&self, text: Text, ready: &SyncSender<Ready>, added: &mut Added) -> Result<()> {
        let segments: Vec<&[u32]> = self.encoder.segments(&text.ids).collect();
        let (begun, answer) = sync_channel(1);
        let owned = segments.iter().map(|segment| segment.to_vec()).collect();
        hand(ready, Ready::Begin(text.work.clone(), owned, begun))?;
        let stored = answer.recv().map_err(|_| Error::Interrupted)?;
        let mut encoding = match stored.done() {
            0 => self.encoder.start(segments.len()),
            ready if ready == segments.len() => self.encoder.start(0),
            ready => self.encoder.resume(self.rows(self.store.prefix(&stored)?), segments.len() - ready)?,
        };
        let (known, rest) = segments.split_at(stored.done());
        let mut read = known.iter().map(|segment| segment.len() as u64).sum::<u64>();
        for some in rest.chunks(self.encoder.at_once()) {
            let rows = encoding.push_all(some)?.into_iter().map(summary_rows).collect::<Result<Vec<_>>>()?;
            if self.encoder.layout().recurrent
                && let Some(newest) = rows.last()
            {
                encoding.replace_newest(self.rows(self.info.precision.round(newest)?))?;
            }
            let tokens = some.iter().map(|segment| segment.len() as u64).sum::<u64>();
            (read, added.tokens_read) = (read + tokens, added.tokens_read + tokens);
            let done = text.work.text_bytes * read / (text.ids.len() as u64).max(1);
            hand(ready, Ready::Segments(rows, done))?;
        }
        hand(ready, Ready::End)?;
        self.count(&text, added);
        Ok(())
    }

    fn count(&self, text: &Text, added: &mut Added) {
        added.documents += 1;
        added.tokens += text.ids.len() as u64;
        added.summary_vectors += self.encoder.layout().summary_vectors(text.ids.len()) as u64;
    }

    /// Stores what comes, of texts with `total` bytes in all, and tells the observer.
    fn store_all(&self, ready: &Receiver<Ready>, total: u64) -> Result<()> {
        let (mut before, mut current) = (0, None::<(Pending, Encoding)>);
        for ready in ready {
            match ready {
                Ready::Documents(documents) => {
                    self.put_documents(&documents)?;
                    for Compressed { text: Text { work, .. }, .. } in &documents {
                        before += work.text_bytes;
                        self.observer.tell(&Event::Compressed { document: &work.id, done: before, total })?;
                    }
                }
                Ready::Begin(work, segments, begun) => {
                    let segments: Vec<&[u32]> = segments.iter().map(Vec::as_slice).collect();
                    let encoding = self.store.begin(&work, &self.info, &segments)?;
                    // Nobody waits for it if compressing has failed, which is then the error.
                    let _ = begun.send(encoding.clone());
                    current = Some((work, encoding));
                }
                Ready::Segments(summaries, done) => {
                    let Some((work, encoding)) = &mut current else { continue };
                    for rows in &summaries {
                        self.store.put_segment(encoding, rows)?;
                    }
                    let done = before + done;
                    self.observer.tell(&Event::Compressed { document: &work.id, done, total })?;
                }
                Ready::End => {
                    if let Some((work, encoding)) = current.take() {
                        self.store.commit(&encoding)?;
                        before += work.text_bytes;
                    }
                }
            }
        }
        Ok(())
    }

    fn put_documents(&self, documents: &[Compressed]) -> Result<()> {
        let segments: Vec<Vec<&[u32]>> =
            documents.iter().map(|document| self.encoder.segments(&document.text.ids).collect()).collect();
        let summaries = documents.iter().zip(&segments);
        let summaries =
            summaries.map(|(Compressed { text, rows }, segments)| NewSummary { work: &text.work, segments, rows });
        self.store.put_summaries(&self.info, &summaries.collect::<Vec<_>>())
    }
}

/// Hands something on. Nobody takes it where storing ended early: then compressing ends as well.
fn hand(ready: &SyncSender<Ready>, what: Ready) -> Result<()> {
    ready.send(what).map_err(|_| Error::Interrupted)
}

/// Summary vectors `[n, hidden]`, on the host.
fn summary_rows(summary: Tensor<2>) -> Result<SummaryRows, Error> {
    let [rows, hidden] = summary.dims();
    SummaryRows::new(rows, hidden, host(summary)?)
}

//! Offline, first half: documents in, summary vectors stored.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use burn::tensor::{Tensor, TensorData};

use crate::{
    Error, Event, Lloco, Result,
    store::{NewDocument, Pending, Shard, Store, SummaryRows},
};

/// What adding documents did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Added {
    /// Documents that were compressed.
    pub documents: usize,
    /// Documents that were there already, compressed.
    pub unchanged: usize,
    /// Tokens of the compressed documents.
    pub tokens: u64,
    /// Tokens that had to be read; fewer where a document was continued or shares its beginning with another.
    pub tokens_read: u64,
    /// Summary vectors of the compressed documents.
    pub summary_vectors: u64,
    /// Passages embedded for retrieval.
    pub passages: usize,
    /// Time spent compressing.
    pub compressing: Duration,
    /// Time spent embedding passages.
    pub embedding: Duration,
    /// Files that could not be read, with the reason; the others were added.
    pub failed: Vec<(PathBuf, Error)>,
}

impl Added {
    /// Tokens for each summary vector, or 0 if nothing was compressed.
    pub fn ratio(&self) -> f64 {
        if self.summary_vectors == 0 { 0.0 } else { self.tokens as f64 / self.summary_vectors as f64 }
    }
}

impl Lloco {
    /// Adds the text files that match a glob pattern to a group, and compresses what is new.
    ///
    /// A document's id is its path, its title the file's name. A file that changed since is replaced; only the
    /// segments behind the change are read again. Running it twice does no work twice; after an interruption it goes on.
    ///
    /// # Errors
    /// When no file matches, or compressing or storing fails. Single files that cannot be read are reported.
    pub fn add_files(&self, group: &str, pattern: &str) -> Result<Added> {
        self.add_all_files(group, &[pattern])
    }

    /// [`add_files`](Self::add_files) for several patterns, for example the names that a shell made of one.
    ///
    /// # Errors
    /// As [`add_files`](Self::add_files); when one of the patterns matches no file, nothing is added.
    pub fn add_all_files<P: AsRef<str>>(&self, group: &str, patterns: &[P]) -> Result<Added> {
        let mut files = BTreeSet::new();
        for pattern in patterns {
            files.extend(matching(pattern.as_ref())?);
        }
        let mut added = Added::default();
        for path in files {
            match read_text(&path).and_then(|text| self.put(group, &path, &text)) {
                Ok(changed) => added.unchanged += usize::from(!changed),
                Err(error) => added.failed.push((path, error)),
            }
        }
        self.finish(added)
    }

    /// Adds documents, and compresses what is new. A document of a known id is replaced if its contents differ.
    ///
    /// # Errors
    /// When a document is empty or compressing or storing fails.
    pub fn add(&self, documents: &[NewDocument<'_>]) -> Result<Added> {
        let mut added = Added::default();
        for document in documents {
            let known = self.compressed(document.id)?;
            let stored = self.store.replace(document)?;
            added.unchanged += usize::from(known.is_some_and(|text| text == stored.text && stored.staged.is_none()));
        }
        self.finish(added)
    }

    fn finish(&self, mut added: Added) -> Result<Added> {
        self.compress_pending(&mut added)?;
        if self.shard != Shard::ALL {
            return Ok(added);
        }
        let start = Instant::now();
        added.passages = self.search_mut().update(&self.store, &self.embedder, &self.observer)?;
        added.embedding = start.elapsed();
        Ok(added)
    }

    /// Stores one file's text; whether there is something to compress.
    fn put(&self, group: &str, path: &Path, text: &str) -> Result<bool> {
        let id = path.to_string_lossy();
        let title = path.file_stem().map_or_else(|| id.clone(), |name| name.to_string_lossy());
        let known = self.compressed(&id)?;
        let document = self.store.replace(&NewDocument::new(&id, text).group(group).title(&title))?;
        Ok(known.is_none_or(|text| text != document.text) || document.staged.is_some())
    }

    /// Digest of a document's text, if this encoder has compressed it.
    fn compressed(&self, id: &str) -> Result<Option<crate::Digest>> {
        let document = self.store.document(id)?;
        let own = document.filter(|d| d.summary.as_ref().is_some_and(|summary| summary.encoder == self.info));
        Ok(own.map(|document| document.text))
    }

    fn compress_pending(&self, added: &mut Added) -> Result<()> {
        let start = Instant::now();
        let pending = self.store.pending(&self.info, self.shard)?;
        let mut work = Vec::with_capacity(pending.len());
        for item in pending {
            let ids = self.prompts.tokenizer().encode(&self.store.text(&item.text)?)?;
            work.push((item, ids));
        }
        let total = work.iter().map(|(_, ids)| ids.len() as u64).sum();
        let mut done = 0;
        for (item, ids) in work {
            self.compress_document(&item, &ids, added, &mut done, total)?;
        }
        added.compressing += start.elapsed();
        Ok(())
    }

    fn compress_document(
        &self,
        item: &Pending,
        ids: &[u32],
        added: &mut Added,
        done: &mut u64,
        total: u64,
    ) -> Result<()> {
        let segments: Vec<&[u32]> = self.encoder.segments(ids).collect();
        let mut stored = self.store.begin(item, &self.info, &segments)?;
        let mut encoding = match stored.done() {
            0 => self.encoder.start(segments.len()),
            ready if ready == segments.len() => self.encoder.start(0),
            ready => self.encoder.resume(self.rows(self.store.prefix(&stored)?), segments.len() - ready)?,
        };
        *done += segments.iter().take(stored.done()).map(|segment| segment.len() as u64).sum::<u64>();
        while let Some(segment) = segments.get(stored.done()) {
            let summary = encoding.push(segment)?;
            let [rows, hidden] = summary.dims();
            let summary = SummaryRows::new(rows, hidden, host(summary)?)?;
            let kept = self.store.put_segment(&mut stored, &summary)?;
            encoding.replace_newest(self.rows(kept))?;
            *done += segment.len() as u64;
            added.tokens_read += segment.len() as u64;
            self.observer.tell(&Event::Compressed { document: &item.id, done: *done, total })?;
        }
        self.store.commit(&stored)?;
        added.documents += 1;
        added.tokens += ids.len() as u64;
        added.summary_vectors += self.encoder.layout().summary_vectors(ids.len()) as u64;
        Ok(())
    }

    /// Stored rows on the model's device, `[n, hidden]`.
    pub(crate) fn rows(&self, rows: SummaryRows) -> Tensor<2> {
        let shape = [rows.rows(), rows.hidden()];
        Tensor::from_data(TensorData::new(rows.into_data(), shape), self.encoder.decoder().device())
    }
}

/// The files that a pattern stands for; the name of a file that exists stands for itself.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    if Path::new(pattern).is_file() {
        return Ok(vec![pattern.into()]);
    }
    let fail = |reason: String| Error::Pattern { pattern: pattern.to_owned(), reason };
    let mut files = Vec::new();
    for path in glob::glob(pattern).map_err(|e| fail(e.to_string()))? {
        let path = path.map_err(|e| fail(e.to_string()))?;
        if path.is_file() {
            files.push(path);
        }
    }
    match files.is_empty() {
        true => Err(Error::NoFiles { pattern: pattern.to_owned() }),
        false => Ok(files),
    }
}

/// A text file's contents.
fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Error::io("read", path, error))?;
    String::from_utf8(bytes)
        .map_err(|e| Error::NotText { path: path.to_path_buf(), offset: e.utf8_error().valid_up_to() })
}

/// A tensor's values on the host.
pub(crate) fn host(rows: Tensor<2>) -> Result<Vec<f32>> {
    let failed = |e: String| {
        let what = "reading summary vectors from the device";
        Error::Decoder(lloco_decoder::Error::Mismatch { what, expected: "f32 values".into(), found: e })
    };
    let data = rows.try_into_data().map_err(|e| failed(format!("{e:?}")))?;
    data.try_to_vec::<f32>().map_err(|e| failed(format!("{e:?}")))
}

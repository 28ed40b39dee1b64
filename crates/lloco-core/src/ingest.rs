//! Offline, first half: documents in, summary vectors stored.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use burn::tensor::{Tensor, TensorData};

use crate::{
    Error, Lloco, Result,
    files::Matches,
    reader::{self, FileText},
    store::{NewDocument, Shard, Store, SummaryRows},
};

/// What adding documents did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Added {
    /// Documents that were compressed.
    pub documents: usize,
    /// Documents that were there already, compressed.
    pub unchanged: usize,
    /// Documents of the library that keep the summary of another encoder; [`Lloco::reencode`] compresses them.
    pub stale: usize,
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

/// Texts that are handed to the store together, in bytes and in number.
const BATCH_BYTES: usize = 64 << 20;
const BATCH_FILES: usize = 1024;

/// A file that was read.
struct FileDocument {
    id: String,
    title: String,
    text: String,
}

impl Added {
    /// Tokens for each summary vector, or 0 if nothing was compressed.
    pub fn ratio(&self) -> f64 {
        if self.summary_vectors == 0 { 0.0 } else { self.tokens as f64 / self.summary_vectors as f64 }
    }
}

impl Lloco {
    /// Adds the files that match a glob pattern to a group, and compresses what is new. [`reader`](crate::reader) says
    /// which formats are read.
    ///
    /// A document's id is its path, its title the file's own or else its name. A file that changed since is replaced; only
    /// the segments behind the change are read again. A file whose path is not UTF-8 has no id: it is reported and left
    /// out. Running it twice does no work twice; after an interruption it goes on.
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
        let mut matches = Matches::default();
        patterns.iter().try_for_each(|pattern| matches.add(pattern.as_ref()))?;
        let (mut added, mut read, mut bytes) = (Added::default(), Vec::new(), 0);
        for path in matches.files.into_iter().chain(matches.unnameable) {
            match self.read(&path) {
                Ok(file) => {
                    bytes += file.text.len();
                    read.push(file);
                }
                Err(error) => added.failed.push((path, error)),
            }
            if bytes >= BATCH_BYTES || read.len() >= BATCH_FILES {
                self.put_files(group, &read, &mut added)?;
                (read, bytes) = (Vec::new(), 0);
            }
        }
        self.put_files(group, &read, &mut added)?;
        self.finish(added, false)
    }

    /// Adds documents, and compresses what is new. A document of a known id is replaced if its contents differ; of
    /// two with the same id the later counts.
    ///
    /// # Errors
    /// When a document is empty, too long or has an unusable id, and then nothing is stored; when compressing or
    /// storing fails.
    pub fn add(&self, documents: &[NewDocument<'_>]) -> Result<Added> {
        for document in documents {
            self.check_length(document.id, document.text.len() as u64)?;
        }
        let mut added = Added::default();
        self.put(documents, &mut added)?;
        self.finish(added, false)
    }

    /// Compresses with this encoder every document that another one compressed: after a change of model, tokenizer,
    /// segment length or precision.
    ///
    /// Each document keeps its old summary until its new one is complete. After an interruption, calling it again
    /// goes on; it does nothing when nothing is left. Adapters were trained on the old summaries: finetune again.
    ///
    /// # Errors
    /// When compressing or storing fails.
    pub fn reencode(&self) -> Result<Added> {
        self.finish(Added::default(), true)
    }

    fn finish(&self, mut added: Added, reencode: bool) -> Result<Added> {
        self.compress_pending(&mut added, reencode)?;
        if self.shard != Shard::ALL {
            return Ok(added);
        }
        let start = Instant::now();
        added.passages = self.search_mut().update(&self.store, &self.embedder, &self.observer)?;
        added.embedding = start.elapsed();
        Ok(added)
    }

    /// A file as a document: its path is the id, its own title or its name the title.
    fn read(&self, path: &Path) -> Result<FileDocument> {
        let id = path.to_str().ok_or_else(|| {
            let (name, reason) = (path.to_string_lossy().into_owned(), "the file's path is not UTF-8");
            Error::InvalidName { kind: "document id", name, reason }
        })?;
        if reader::is_text(path) {
            let bytes = fs::metadata(path).map_err(|error| Error::io("read", path, error))?.len();
            self.check_length(id, bytes)?;
        }
        let FileText { text, title } = reader::read(path)?;
        self.check_length(id, text.len() as u64)?;
        NewDocument::new(id, &text).check()?;
        let name = || path.file_stem().map_or_else(|| id.into(), |name| name.to_string_lossy().into_owned());
        let title = title.unwrap_or_else(name);
        Ok(FileDocument { id: id.to_owned(), title, text })
    }

    /// Refuses texts beyond the limit, before they are read.
    pub(crate) fn check_length(&self, id: &str, bytes: u64) -> Result<()> {
        let limit = self.document_limit;
        if bytes > limit { Err(Error::DocumentTooLong { id: id.into(), bytes, limit }) } else { Ok(()) }
    }

    fn put_files(&self, group: &str, files: &[FileDocument], added: &mut Added) -> Result<()> {
        let documents = files.iter().map(|file| NewDocument::new(&file.id, &file.text).group(group).title(&file.title));
        self.put(&documents.collect::<Vec<_>>(), added)
    }

    /// Stores texts, and counts those that are there compressed.
    fn put(&self, documents: &[NewDocument<'_>], added: &mut Added) -> Result<()> {
        let known = documents.iter().map(|document| self.compressed(document.id)).collect::<Result<Vec<_>>>()?;
        let stored = self.store.replace_all(documents)?;
        let same = known
            .iter()
            .zip(&stored)
            .filter(|(known, stored)| known.is_some_and(|text| text == stored.text && stored.staged.is_none()));
        added.unchanged += same.count();
        Ok(())
    }

    /// Digest of a document's text, if this encoder has compressed it.
    fn compressed(&self, id: &str) -> Result<Option<crate::Digest>> {
        let document = self.store.document(id)?;
        let own = document.filter(|d| d.summary.as_ref().is_some_and(|summary| summary.encoder == self.info));
        Ok(own.map(|document| document.text))
    }

    /// Stored rows on the model's device, `[n, hidden]`.
    pub(crate) fn rows(&self, rows: SummaryRows) -> Tensor<2> {
        let shape = [rows.rows(), rows.hidden()];
        Tensor::from_data(TensorData::new(rows.into_data(), shape), self.encoder.decoder().device())
    }
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

//! What every context encoder offers: segments in, summary vectors out.

use std::{fmt, slice::Chunks, sync::Arc};

use lloco_decoder::{Decoder, burn::tensor::Tensor};
use lloco_lora::Adapter;

use crate::{Error, Result};

/// A context encoder: it reads a document segment by segment and leaves summary vectors.
///
/// [`AutoCompressor`](crate::AutoCompressor) reads a segment behind the summaries of those before it,
/// [`Pooled`](crate::Pooled) reads each by itself. Neither takes a domain adapter: what is stored can never depend on
/// one.
pub trait ContextEncoder: fmt::Debug + Send + Sync {
    /// The model that reads, documents and summaries alike.
    fn decoder(&self) -> &Arc<Decoder>;

    /// SHA-256 of all that summaries depend on, in hexadecimal: encoders of equal fingerprint make equal summaries.
    fn fingerprint(&self) -> &str;

    /// Whether the encoder was trained.
    fn training(&self) -> Training;

    /// How documents are cut and what a segment leaves.
    fn layout(&self) -> Layout;

    /// The adapter with which the model learned to read summaries, if it learned it together with the encoder: what
    /// answers where a group of documents has none of its own, and where finetuning starts.
    fn reader(&self) -> Option<&Arc<Adapter>>;

    /// Begins a document of about `segments` segments; more are welcome.
    fn start(&self, segments: usize) -> Box<dyn Encoding + '_>;

    /// Goes on behind the softprompt of a document's complete segments, `[n, hidden]`, with about `segments` more.
    ///
    /// The result is that of encoding the whole document from its start.
    ///
    /// # Errors
    /// [`Error::SoftpromptShape`] for rows that this encoder cannot have made.
    fn resume(&self, softprompt: Tensor<2>, segments: usize) -> Result<Box<dyn Encoding + '_>>;

    /// Cuts token ids into segments; only the last may be shorter than the others.
    fn segments<'a>(&self, ids: &'a [u32]) -> Chunks<'a, u32> {
        ids.chunks(self.layout().segment_length)
    }

    /// Segments that are best read at once, one where each depends on those before it.
    fn at_once(&self) -> usize {
        1
    }

    /// Encodes a whole document: its softprompt, `[summary_vectors, hidden]`.
    ///
    /// # Errors
    /// [`Error::EmptyDocument`], or an id beyond the vocabulary.
    fn encode(&self, ids: &[u32]) -> Result<Tensor<2>> {
        let segments: Vec<&[u32]> = self.segments(ids).collect();
        let mut encoding = self.start(segments.len());
        for some in segments.chunks(self.at_once()) {
            encoding.push_all(some)?;
        }
        encoding.softprompt().ok_or(Error::EmptyDocument)
    }

    /// Encodes several documents, each as [`encode`](Self::encode) does; short ones sooner than one by one, as they are read
    /// together. Those of as many tokens as [`at_once`](Self::at_once) segments have together are best.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for any of them.
    fn encode_all(&self, documents: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        documents.iter().map(|ids| self.encode(ids)).collect()
    }
}

/// A document on its way through an encoder.
pub trait Encoding {
    /// Reads the next segment; returns its summary vectors, `[n, hidden]`.
    ///
    /// # Errors
    /// For an empty or too long segment, one behind a short one, or an id beyond the vocabulary; nothing is lost then.
    fn push(&mut self, segment: &[u32]) -> Result<Tensor<2>>;

    /// Reads the next segments, several at once where that is faster; returns the summary vectors of each.
    ///
    /// # Errors
    /// As [`push`](Self::push), for any of them.
    fn push_all(&mut self, segments: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        segments.iter().map(|segment| self.push(segment)).collect()
    }

    /// Puts `rows`, of the shape that [`push`](Self::push) returned, in the place of the newest summary, for all that
    /// follows: a store that keeps summaries in half precision gives back what it kept, and a run that was interrupted
    /// goes on from the same rows as one that was not.
    ///
    /// # Errors
    /// [`Error::SoftpromptShape`] for rows of another shape, or before the first segment.
    fn replace_newest(&mut self, rows: Tensor<2>) -> Result<()>;

    /// The softprompt so far, `[n, hidden]`, or `None` before the first segment.
    fn softprompt(&self) -> Option<Tensor<2>>;
}

/// Whether an encoder was ever trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// Its weights come from a training run.
    Trained,
    /// It is where training starts. Its summary vectors say little.
    Untrained,
}

/// How an encoder cuts documents, and what a segment leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// Tokens a segment; a document's last may have fewer.
    pub segment_length: usize,
    /// Summary vectors of a full segment, and the most of any.
    pub summary_length: usize,
    /// Whether the softprompt is all segments' summaries (`true`) or the last one's alone.
    pub accumulate: bool,
    /// Whether a segment's summary depends on the segments before it.
    pub recurrent: bool,
}

impl Layout {
    /// Rows of the softprompt of a document of `tokens` tokens.
    pub fn summary_vectors(&self, tokens: usize) -> usize {
        let Self { segment_length, summary_length, accumulate, recurrent } = *self;
        match (recurrent, accumulate) {
            (true, true) => tokens.div_ceil(segment_length) * summary_length,
            (true, false) => tokens.min(1) * summary_length,
            // A window of tokens gives a vector, the last window of a text may be shorter.
            (false, _) => {
                let rest = tokens % segment_length;
                tokens / segment_length * summary_length + (rest * summary_length).div_ceil(segment_length)
            }
        }
    }

    /// Checks the length of a segment behind `short`, the length of a shorter one before it.
    pub(crate) fn check(&self, segment: usize, short: Option<usize>) -> Result<()> {
        let expected = self.segment_length;
        match (segment, short) {
            (0, _) => Err(Error::EmptyDocument),
            (_, Some(found)) => Err(Error::SegmentTooShort { expected, found }),
            (found, _) if found > expected => Err(Error::SegmentTooLong { expected, found }),
            _ => Ok(()),
        }
    }
}

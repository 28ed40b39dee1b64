//! AutoCompressor: segments in, summary vectors out.

use std::sync::Arc;

use lloco_decoder::{
    Checkpoint, Decoder, KvCache, Pass,
    burn::tensor::{Tensor, s},
};
use sha2::{Digest, Sha256};

use crate::{EncoderConfig, EncoderOptions, Error, Result};

/// Name of the summary tokens' embeddings in a checkpoint, `[summary_length, hidden]`.
const EMBED_SUMMARY: &str = "embed_summary.weight";

/// Whether a compressor was ever trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// The checkpoint brought summary embeddings.
    Trained,
    /// It brought none; they are copies of the end token's embedding, where training starts. The summary vectors
    /// say little until the compressor is trained.
    Untrained,
}

/// The context encoder of LLoCO (arXiv 2305.14788, section 3; arXiv 2404.07979, section 3.1).
///
/// Encoder and decoder are one model; the encoder runs without any domain adapter.
#[derive(Debug)]
pub struct AutoCompressor {
    decoder: Arc<Decoder>,
    config: EncoderConfig,
    /// `[1, summary_length, hidden]`.
    embed_summary: Tensor<3>,
    training: Training,
    fingerprint: String,
}

impl AutoCompressor {
    /// Adds the checkpoint's summary embeddings to its `decoder`. A checkpoint without them, a plain language
    /// model, gets an untrained compressor: see [`training`](Self::training).
    ///
    /// # Errors
    /// When a setting does not fit the checkpoint, or the checkpoint's summary embeddings cannot be read.
    pub fn load(checkpoint: &Checkpoint, decoder: Arc<Decoder>, options: &EncoderOptions) -> Result<Self> {
        let hidden = decoder.config().hidden_size;
        let rows = checkpoint.shape(EMBED_SUMMARY).and_then(|shape| shape.first().copied());
        let config = options.settle(checkpoint, rows)?;
        let shape = [config.summary_length, hidden];
        let (embeddings, training) = match rows {
            Some(_) => {
                let data = checkpoint.tensor(EMBED_SUMMARY, &shape)?;
                (Tensor::<2>::from_data(data, decoder.device()).unsqueeze(), Training::Trained)
            }
            None => {
                tracing::warn!(
                    checkpoint = %checkpoint.path().display(),
                    "no {EMBED_SUMMARY}: the compressor is untrained and its summaries say little"
                );
                (untrained(&decoder, config.summary_length)?, Training::Untrained)
            }
        };
        let mut hash = Sha256::new();
        hash.update("autocompressor 1\n");
        hash.update(checkpoint.fingerprint());
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = config;
        hash.update(format!("{segment_length} {summary_length} {accumulate_summary}\n"));
        let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { decoder, config, embed_summary: embeddings, training, fingerprint })
    }

    /// Lengths of segments and summaries.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The model that reads.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// Whether the compressor was trained.
    pub fn training(&self) -> Training {
        self.training
    }

    /// SHA-256 of weights and configuration, in hexadecimal: encoders of equal fingerprint make equal summaries.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Cuts token ids into segments.
    pub fn segments<'a>(&self, ids: &'a [u32]) -> impl ExactSizeIterator<Item = &'a [u32]> {
        ids.chunks(self.config.segment_length)
    }

    /// Encodes a whole document: its softprompt, `[summary_vectors, hidden]`.
    ///
    /// # Errors
    /// [`Error::EmptyDocument`], or an id beyond the vocabulary.
    pub fn encode(&self, ids: &[u32]) -> Result<Tensor<2>> {
        let mut encoding = self.start(self.config.segments(ids.len()));
        for segment in self.segments(ids) {
            encoding.push(segment)?;
        }
        encoding.softprompt().ok_or(Error::EmptyDocument)
    }

    /// Begins a document of about `segments` segments; more are welcome.
    pub fn start(&self, segments: usize) -> Encoding<'_> {
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = self.config;
        let prefix = if accumulate_summary { segments.saturating_sub(1) } else { 1 } * summary_length;
        let cache = KvCache::new(&self.decoder, 1, prefix + segment_length + summary_length);
        Encoding { encoder: self, cache, softprompt: Vec::new(), unread: 0, short: None }
    }

    /// Goes on behind the softprompt of a document's complete segments, `[n, hidden]`.
    ///
    /// The result is that of encoding the whole document from its start.
    ///
    /// # Errors
    /// [`Error::SoftpromptShape`] for rows that this encoder cannot have made.
    pub fn resume(&self, softprompt: Tensor<2>, segments: usize) -> Result<Encoding<'_>> {
        let [rows, width] = softprompt.dims();
        let summary = self.config.summary_length;
        let fits = if self.config.accumulate_summary { rows % summary == 0 } else { rows == summary };
        if !fits || width != self.decoder.config().hidden_size || rows == 0 {
            let expected = format!("a multiple of {summary} rows of width {}", self.decoder.config().hidden_size);
            return Err(Error::SoftpromptShape { expected, found: vec![rows, width] });
        }
        let mut encoding = self.start(rows / summary + segments);
        let softprompt = softprompt.to_device(self.decoder.device());
        encoding.unread = rows / summary;
        encoding.softprompt = softprompt.split(summary, 0);
        Ok(encoding)
    }
}

/// A document on its way through the encoder.
///
/// The softprompt is a causal prefix: keys and values of its rows never change as it grows. They stay in the KV
/// cache, and each segment costs only `[newest summary ; segment ; summary tokens]` rows.
#[derive(Debug)]
pub struct Encoding<'a> {
    encoder: &'a AutoCompressor,
    /// Keys and values of the softprompt's rows, but for the newest `unread` summaries.
    cache: KvCache,
    /// Summaries so far, each `[summary_length, hidden]`.
    softprompt: Vec<Tensor<2>>,
    unread: usize,
    /// Length of the last segment, if it was not a full one.
    short: Option<usize>,
}

impl Encoding<'_> {
    /// Reads the next segment; returns its summary vectors, `[summary_length, hidden]`.
    ///
    /// # Errors
    /// For an empty or too long segment, one behind a short one, or an id beyond the vocabulary; nothing is lost then.
    pub fn push(&mut self, segment: &[u32]) -> Result<Tensor<2>> {
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = self.encoder.config;
        match (segment.len(), self.short) {
            (0, _) => return Err(Error::EmptyDocument),
            (_, Some(found)) => return Err(Error::SegmentTooShort { expected: segment_length, found }),
            (found, _) if found > segment_length => {
                return Err(Error::SegmentTooLong { expected: segment_length, found });
            }
            _ => {}
        }
        let decoder = &self.encoder.decoder;
        let text = decoder.embed(segment)?;
        let embed_summary = self.encoder.embed_summary.clone().cast(text.dtype());
        let prefix = self.softprompt.iter().skip(self.softprompt.len() - self.unread);
        let mut rows: Vec<Tensor<3>> = prefix.map(|rows| rows.clone().cast(text.dtype()).unsqueeze()).collect();
        rows.extend([text, embed_summary]);

        let kept = self.cache.len() + self.unread * summary_length;
        let pass = Pass::new().cache(&mut self.cache).last_rows(summary_length);
        let hidden = decoder.forward(Tensor::cat(rows, 1), pass)?;
        let summary: Tensor<2> = hidden.squeeze_dim(0);

        if accumulate_summary {
            self.cache.truncate(kept);
        } else {
            // The next segment sees this summary alone, at position 0.
            self.cache.truncate(0);
            self.softprompt.clear();
        }
        self.unread = 1;
        self.softprompt.push(summary.clone());
        self.short = (segment.len() < segment_length).then_some(segment.len());
        Ok(summary)
    }

    /// Puts `rows` `[summary_length, hidden]` in the place of the newest summary, for all that follows: a store that
    /// keeps summaries in half precision gives back what it kept, and a run that was interrupted goes on from the
    /// same rows as one that was not.
    ///
    /// # Errors
    /// [`Error::SoftpromptShape`] for rows of another shape, or before the first segment.
    pub fn replace_newest(&mut self, rows: Tensor<2>) -> Result<()> {
        let expected = [self.encoder.config.summary_length, self.encoder.decoder.config().hidden_size];
        match self.softprompt.last_mut() {
            Some(newest) if rows.dims() == expected => *newest = rows.to_device(self.encoder.decoder.device()),
            _ => {
                let expected = format!("{expected:?}, behind at least one segment");
                return Err(Error::SoftpromptShape { expected, found: rows.dims().to_vec() });
            }
        }
        Ok(())
    }

    /// The softprompt so far, `[n, hidden]`, or `None` before the first segment.
    pub fn softprompt(&self) -> Option<Tensor<2>> {
        match self.softprompt.is_empty() {
            true => None,
            false => Some(Tensor::cat(self.softprompt.clone(), 0)),
        }
    }
}

/// Copies of the end token's embedding, `[1, summary_length, hidden]`: where training starts.
fn untrained(decoder: &Decoder, summary_length: usize) -> Result<Tensor<3>> {
    let Some(&end) = decoder.config().eos_token_ids.first() else {
        return Err(Error::InvalidSetting {
            field: "eos_token_id",
            found: "none".into(),
            expected: "untrained summary tokens start as the end token; name it in config.json".into(),
        });
    };
    let end: Tensor<3> = decoder.embed(&[end])?;
    Ok(end.slice(s![.., 0..1, ..]).repeat_dim(1, summary_length))
}

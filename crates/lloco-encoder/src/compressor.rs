//! AutoCompressor: segments in, summary vectors out.

use std::sync::Arc;

use lloco_decoder::{
    Checkpoint, Decoder, KvCache, Packing, Pass,
    burn::tensor::{Tensor, s},
};
use lloco_lora::Adapter;
use sha2::{Digest, Sha256};

use crate::{
    Compressor, ContextEncoder, EncoderConfig, EncoderOptions, Encoding, Error, Layout, Mode, Result, Training,
    growing::Growing, tuned::Tuned,
};

/// Name of the summary tokens' embeddings in a checkpoint, `[summary_length, hidden]`.
const EMBED_SUMMARY: &str = "embed_summary.weight";

/// Bytes that keys and values of a document's summaries may take in memory, on a CPU.
const SUMMARIES_IN_MEMORY: usize = 1 << 20;

/// The context encoder of LLoCO (arXiv 2305.14788, section 3; arXiv 2404.07979, section 3.1).
///
/// Encoder and decoder are one model; the encoder runs without any domain adapter. On a CPU, memory hardly grows with a
/// document's length: beyond 1 MiB, what is known of the summaries so far lies in a temporary file ([`KvCache::spilled`]).
#[derive(Debug)]
pub struct AutoCompressor {
    decoder: Arc<Decoder>,
    config: EncoderConfig,
    /// `[1, summary_length, hidden]`.
    embed_summary: Tensor<3>,
    training: Training,
    /// Active while documents are read, and only then.
    adapter: Option<Tuned>,
    reader: Option<Arc<Adapter>>,
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
                (end_rows(&decoder, config.summary_length)?, Training::Untrained)
            }
        };
        let mut hash = Sha256::new();
        hash.update("autocompressor 1\n");
        hash.update(checkpoint.fingerprint());
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = config;
        hash.update(format!("{segment_length} {summary_length} {accumulate_summary}\n"));
        let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { decoder, config, embed_summary: embeddings, training, adapter: None, reader: None, fingerprint })
    }

    /// The encoder of a compressor that was trained, or is to be. Segments may be of another length than in training,
    /// where it was random; the rest is as trained.
    pub(crate) fn trained(compressor: &Compressor, decoder: Arc<Decoder>, options: &EncoderOptions) -> Result<Self> {
        let Mode::AutoCompressor(trained) = &compressor.config.mode else {
            let (found, expected) = (format!("{:?}", compressor.config.mode), "autocompressor".into());
            return Err(Error::InvalidSetting { field: "mode", found, expected });
        };
        let config = options.settle_trained(*trained)?;
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = config;
        let fingerprint = compressor
            .fingerprint(&format!("autocompressor {segment_length} {summary_length} {accumulate_summary}"))?;
        let weights = &compressor.weights;
        let rows = weights.encoder.embed_summary().ok_or_else(|| Error::InvalidSetting {
            field: "embed_summary",
            found: "none".into(),
            expected: "a compressor of this mode has summary embeddings".into(),
        })?;
        Ok(Self {
            embed_summary: rows.clone().unsqueeze(),
            training: if compressor.config.steps > 0 { Training::Trained } else { Training::Untrained },
            adapter: Some(weights.encoder.clone()),
            reader: weights.reading().cloned().map(Arc::new),
            decoder,
            config,
            fingerprint,
        })
    }

    /// Lengths of segments and summaries.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Documents of one segment each, read in one pass as sequences that do not see each other.
    fn encode_short(&self, documents: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        let (mut packing, mut inputs, mut summaries) = (Packing::new(), Vec::new(), Vec::new());
        for ids in documents {
            let text = self.decoder.embed(ids)?;
            let embed_summary = self.embed_summary.clone().cast(text.dtype());
            inputs.extend([text, embed_summary]);
            packing.tree(ids.len() + self.config.summary_length, &[]);
            summaries.push(packing.rows() - self.config.summary_length..packing.rows());
        }
        let mut pass = Pass::new().packing(&packing);
        if let Some(adapter) = &self.adapter {
            pass = pass.adapter(adapter);
        }
        let hidden: Tensor<2> = self.decoder.forward(Tensor::cat(inputs, 1), pass)?.squeeze_dim(0);
        Ok(summaries.into_iter().map(|rows| hidden.clone().slice(s![rows, ..])).collect())
    }

    fn begin(&self, segments: usize) -> Recurrent<'_> {
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = self.config;
        let rows = if accumulate_summary { segments.max(1) } else { 1 }.saturating_mul(summary_length);
        // The newest summary is read by the segment behind it, and the last by none.
        let capacity = rows.saturating_add(segment_length);
        let cache = KvCache::spilled(&self.decoder, 1, capacity, SUMMARIES_IN_MEMORY);
        Recurrent { encoder: self, cache, softprompt: Growing::new(rows), unread: 0, short: None }
    }
}

impl ContextEncoder for AutoCompressor {
    fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn training(&self) -> Training {
        self.training
    }

    fn layout(&self) -> Layout {
        self.config.layout()
    }

    fn reader(&self) -> Option<&Arc<Adapter>> {
        self.reader.as_ref()
    }

    fn encode_all(&self, documents: &[&[u32]]) -> Result<Vec<Tensor<2>>> {
        let (mut softprompts, mut rest) = (Vec::with_capacity(documents.len()), documents);
        while let Some(first) = rest.first() {
            // As many short ones as take no more rows together than one segment.
            let EncoderConfig { segment_length, summary_length, .. } = self.config;
            let fits = |rows: &mut usize, ids: &&[u32]| {
                *rows += ids.len() + summary_length;
                (!ids.is_empty() && *rows <= segment_length + summary_length).then_some(())
            };
            let count = rest.iter().scan(0, fits).count().max(1);
            match count {
                1 => softprompts.push(self.encode(first)?),
                _ => softprompts.extend(self.encode_short(&rest[..count])?),
            }
            rest = &rest[count..];
        }
        Ok(softprompts)
    }

    fn start(&self, segments: usize) -> Box<dyn Encoding + '_> {
        Box::new(self.begin(segments))
    }

    fn resume(&self, softprompt: Tensor<2>, segments: usize) -> Result<Box<dyn Encoding + '_>> {
        let [rows, width] = softprompt.dims();
        let summary = self.config.summary_length;
        let fits = if self.config.accumulate_summary { rows % summary == 0 } else { rows == summary };
        if !fits || width != self.decoder.config().hidden_size || rows == 0 {
            let expected = format!("a multiple of {summary} rows of width {}", self.decoder.config().hidden_size);
            return Err(Error::SoftpromptShape { expected, found: vec![rows, width] });
        }
        let mut encoding = self.begin(rows / summary + segments);
        let softprompt = softprompt.to_device(self.decoder.device());
        encoding.unread = rows / summary;
        encoding.softprompt.push(softprompt);
        Ok(Box::new(encoding))
    }
}

/// A document on its way through an AutoCompressor.
///
/// The softprompt is a causal prefix: keys and values of its rows never change as it grows. They alone stay in the KV
/// cache, and each segment costs only `[newest summary ; segment ; summary tokens]` rows.
#[derive(Debug)]
struct Recurrent<'a> {
    encoder: &'a AutoCompressor,
    /// Keys and values of the softprompt's rows, but for the newest `unread` summaries.
    cache: KvCache,
    /// Summaries so far, each of `summary_length` rows.
    softprompt: Growing,
    unread: usize,
    /// Length of the last segment, if it was not a full one.
    short: Option<usize>,
}

impl Encoding for Recurrent<'_> {
    fn push(&mut self, segment: &[u32]) -> Result<Tensor<2>> {
        let EncoderConfig { segment_length, summary_length, accumulate_summary } = self.encoder.config;
        self.encoder.config.layout().check(segment.len(), self.short)?;
        let decoder = &self.encoder.decoder;
        let text = decoder.embed(segment)?;
        let embed_summary = self.encoder.embed_summary.clone().cast(text.dtype());
        let unread =
            self.softprompt.newest(self.unread * summary_length).map(|rows| rows.cast(text.dtype()).unsqueeze());
        let rows: Vec<Tensor<3>> = unread.into_iter().chain([text, embed_summary]).collect();

        // Where summaries do not accumulate, the next segment sees this one's alone, at position 0.
        let kept = if accumulate_summary { self.unread * summary_length } else { 0 };
        let mut pass = Pass::new().cache(&mut self.cache).keep(kept).last_rows(summary_length);
        if let Some(adapter) = &self.encoder.adapter {
            pass = pass.adapter(adapter);
        }
        let hidden = decoder.forward(Tensor::cat(rows, 1), pass)?;
        let summary: Tensor<2> = hidden.squeeze_dim(0);

        if !accumulate_summary {
            self.softprompt.truncate(0);
        }
        self.unread = 1;
        self.softprompt.push(summary.clone());
        self.short = (segment.len() < segment_length).then_some(segment.len());
        Ok(summary)
    }

    fn replace_newest(&mut self, rows: Tensor<2>) -> Result<()> {
        let expected = [self.encoder.config.summary_length, self.encoder.decoder.config().hidden_size];
        if self.softprompt.len() == 0 || rows.dims() != expected {
            let expected = format!("{expected:?}, behind at least one segment");
            return Err(Error::SoftpromptShape { expected, found: rows.dims().to_vec() });
        }
        self.softprompt.truncate(self.softprompt.len() - expected[0]);
        self.softprompt.push(rows.to_device(self.encoder.decoder.device()));
        Ok(())
    }

    fn softprompt(&self) -> Option<Tensor<2>> {
        self.softprompt.newest(self.softprompt.len())
    }
}

/// Copies of the end token's embedding, `[1, rows, hidden]`: where training starts.
pub(crate) fn end_rows(decoder: &Decoder, rows: usize) -> Result<Tensor<3>> {
    let Some(&end) = decoder.config().eos_token_ids.first() else {
        return Err(Error::InvalidSetting {
            field: "eos_token_id",
            found: "none".into(),
            expected: "untrained summary tokens start as the end token; name it in config.json".into(),
        });
    };
    let end: Tensor<3> = decoder.embed(&[end])?;
    Ok(end.slice(s![.., 0..1, ..]).repeat_dim(1, rows))
}

use crate::batch::Batch;
use crate::bert::Bert;
use crate::tokenizer::Tokenizer;
use crate::weights::WeightsFile;
use crate::{EmbedderConfig, Embeddings, Error, Pooling, Result};
use burn::tensor::{Device, Tensor, s};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Texts that are tokenised, sorted by length and cut into batches together.
const WINDOW: usize = 4096;

/// Positions of a batch, padding included.
const BATCH_TOKENS: usize = 4096;

/// A BERT-family text embedder.
///
/// ```no_run
/// use lloco_retrieval::{Embedder, burn::tensor::Device};
///
/// # fn main() -> lloco_retrieval::Result<()> {
/// let embedder = Embedder::load("models/all-MiniLM-L6-v2", &Device::default())?;
/// let vectors = embedder.embed_passages(&["The pump stands in the cellar."])?;
/// assert_eq!((vectors.len(), vectors.dim()), (1, embedder.dim()));
/// # Ok(())
/// # }
/// ```
pub struct Embedder {
    config: EmbedderConfig,
    tokenizer: Tokenizer,
    bert: Bert,
    fingerprint: String,
    device: Device,
}

/// How far an embedding job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Texts embedded so far.
    pub done: usize,
    /// Texts of the job.
    pub total: usize,
}

impl Embedder {
    /// Loads `config.json`, `tokenizer.json` and `model.safetensors` (f32, f16 or bf16) and,
    /// where present, the sentence-transformers files that set pooling and lengths.
    ///
    /// # Errors
    /// Missing or malformed files, unsupported settings, tensors of the wrong shape, a
    /// tokenizer with more ids than the model; each names the file and the field.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = EmbedderConfig::from_dir(&dir)?;
        Self::load_with(dir, config, device)
    }

    /// The same with a configuration of your own.
    ///
    /// # Errors
    /// As [`load`](Self::load), and a configuration out of range.
    pub fn load_with(dir: impl AsRef<Path>, config: EmbedderConfig, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        config.check()?;
        let tokenizer_path = dir.join("tokenizer.json");
        if !tokenizer_path.is_file() {
            return Err(Error::MissingFile {
                directory: dir.to_owned(),
                file: "tokenizer.json",
                advice: "download the model's fast tokenizer",
            });
        }
        let tokenizer = Tokenizer::load(&tokenizer_path, config.max_seq_length, config.bert.vocab_size)?;
        let weights = WeightsFile::open(dir)?;
        let bert = Bert::load(&config.bert, &weights.tensors()?, device)?;
        let fingerprint = fingerprint(&config, &tokenizer_path, weights.bytes())?;
        tracing::debug!(directory = %dir.display(), fingerprint, "embedder loaded");
        Ok(Self { config, tokenizer, bert, fingerprint, device: device.clone() })
    }

    /// The configuration in force.
    pub fn config(&self) -> &EmbedderConfig {
        &self.config
    }

    /// Where the model runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.config.bert.hidden_size
    }

    /// SHA-256, in hexadecimal, of weights, tokenizer and configuration: two embedders with
    /// the same fingerprint give the same vectors.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Vectors of passages, one row a text, in the order given. Texts are cut off after
    /// `max_seq_length` tokens.
    ///
    /// # Errors
    /// The tokenizer or the device failed.
    pub fn embed_passages<T: AsRef<str>>(&self, texts: &[T]) -> Result<Embeddings> {
        self.embed_observed(&self.config.passage_prefix, texts, &mut |_| {})
    }

    /// Vectors of queries; models like e5 tell them from passages by a prefix.
    ///
    /// # Errors
    /// As [`embed_passages`](Self::embed_passages).
    pub fn embed_queries<T: AsRef<str>>(&self, texts: &[T]) -> Result<Embeddings> {
        self.embed_observed(&self.config.query_prefix, texts, &mut |_| {})
    }

    /// The vector of one query.
    ///
    /// # Errors
    /// As [`embed_passages`](Self::embed_passages).
    pub fn embed_query(&self, text: &str) -> Result<Vec<f32>> {
        Ok(self.embed_queries(&[text])?.into_vec())
    }

    /// Vectors of `texts`, each behind `prefix`; `observer` hears of every batch.
    ///
    /// # Errors
    /// As [`embed_passages`](Self::embed_passages).
    pub fn embed_observed<T: AsRef<str>>(
        &self,
        prefix: &str,
        texts: &[T],
        observer: &mut dyn FnMut(Progress),
    ) -> Result<Embeddings> {
        let mut all = Embeddings::zeros(texts.len(), self.dim());
        let mut progress = Progress { done: 0, total: texts.len() };
        for (window, texts) in texts.chunks(WINDOW).enumerate() {
            let ids = self.tokenizer.encode(prefix, texts)?;
            for batch in Batch::plan(&ids, BATCH_TOKENS) {
                let vectors = self.embed_batch(&batch)?;
                for (place, vector) in batch.places().iter().zip(vectors.rows()) {
                    if let Some(row) = all.row_mut(window * WINDOW + place) {
                        row.copy_from_slice(vector);
                    }
                }
                progress.done += vectors.len();
                observer(progress);
            }
        }
        Ok(all)
    }

    /// Pooled vectors `[batch, hidden]` of one batch, in the batch's order.
    fn embed_batch(&self, batch: &Batch) -> Result<Embeddings> {
        let states = self.bert.forward(batch)?;
        let pooled = match self.config.pooling {
            Pooling::Cls => states.slice(s![.., 0..1, ..]),
            Pooling::Mean => Tensor::<3>::from_data(batch.mean_weights(), &self.device).matmul(states),
        };
        let values = pooled
            .try_into_data()
            .map_err(|e| Error::Device(e.to_string()))?
            .try_into_vec_as::<f32>()
            .map_err(|e| Error::Device(e.to_string()))?;
        let mut vectors = Embeddings::new(self.dim(), values)?;
        if self.config.normalize {
            vectors.normalize();
        }
        Ok(vectors)
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

fn fingerprint(config: &EmbedderConfig, tokenizer: &Path, weights: &[u8]) -> Result<String> {
    let tokenizer = std::fs::read(tokenizer).map_err(Error::io("read", tokenizer))?;
    let config = serde_json::to_vec(config).map_err(|e| Error::malformed("config.json", e))?;
    let mut hash = Sha256::new();
    for part in [weights, tokenizer.as_slice(), config.as_slice()] {
        hash.update(Sha256::digest(part));
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

//! A trained compressor as a directory: `compressor.json` and `compressor.safetensors`.

use std::{fs, path::Path, sync::Arc};

use lloco_decoder::{Checkpoint, Decoder};
use lloco_lora::{
    LoraConfig, StoredType,
    durable::{Draft, read_tensors, tensor_bytes},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    AutoCompressor, ContextEncoder, EncoderConfig, EncoderOptions, Error, Pooled, PooledConfig, Result, Tuning,
    weights::Weights,
};

/// Version of the directory's layout.
const FORMAT: u32 = 2;
pub(crate) const CONFIG: &str = "compressor.json";
pub(crate) const WEIGHTS: &str = "compressor.safetensors";

/// `compressor.json`: which model was trained, to read documents how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CompressorConfig {
    /// Version of the directory's layout.
    pub format: u32,
    /// [Fingerprint](Checkpoint::fingerprint) of the language model that the weights belong to.
    pub base: String,
    /// How documents are read.
    pub mode: Mode,
    /// What is active while documents are read, and only then.
    pub encoder: Tuning,
    /// Who reads summaries.
    pub reader: Reader,
    /// Root mean square of the model's embeddings, to which [`Pooled`] scales its summary vectors.
    pub embedding_scale: f64,
    /// Training steps done, with those of the compressor that training began with.
    pub steps: usize,
}

/// How a context encoder reads a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// Segment behind segment, with summary tokens: [`AutoCompressor`].
    AutoCompressor(EncoderConfig),
    /// Independent segments, averaged over windows: [`Pooled`].
    Pooled(PooledConfig),
}

/// Who reads summary vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reader {
    /// The language model as it is.
    Base,
    /// The language model with the encoder's adapter, as AutoCompressor is trained.
    Shared,
    /// The language model with an adapter of its own.
    Own(LoraConfig),
}

/// A compressor's configuration and weights, in memory.
#[derive(Debug, Clone)]
pub struct Compressor {
    pub(crate) config: CompressorConfig,
    pub(crate) weights: Weights,
}

impl Compressor {
    /// Where training starts. `base` is the [fingerprint](Checkpoint::fingerprint) of the decoder's checkpoint.
    ///
    /// # Errors
    /// When a setting is out of range, or the model names no end token.
    pub fn init(
        mode: Mode,
        encoder: impl Into<Tuning>,
        reader: Reader,
        decoder: &Decoder,
        base: impl Into<String>,
        seed: u64,
    ) -> Result<Self> {
        let encoder = encoder.into();
        mode.check()?;
        mode.check_model(decoder.config().num_hidden_layers)?;
        encoder.check(&reader)?;
        let embedding_scale = crate::connector::embedding_scale(decoder)?;
        let (base, steps) = (base.into(), 0);
        let config = CompressorConfig { format: FORMAT, base, mode, encoder, reader, embedding_scale, steps };
        let weights = Weights::init(&config, decoder, seed)?;
        Ok(Self { config, weights })
    }

    /// Reads a directory that [`save`](Self::save) wrote. `base` is the fingerprint of the decoder's checkpoint.
    ///
    /// # Errors
    /// [`Error::OtherModel`] when it was trained for another model; others when a file is missing or damaged.
    pub fn load(dir: impl AsRef<Path>, decoder: &Decoder, base: &str) -> Result<Self> {
        let path = dir.as_ref().join(CONFIG);
        let json = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let malformed = |detail: String| Error::Malformed { path: path.clone(), detail };
        let config: CompressorConfig = serde_json::from_slice(&json).map_err(|e| malformed(e.to_string()))?;
        if config.format != FORMAT {
            return Err(malformed(format!("format {}; this program reads {FORMAT}", config.format)));
        }
        if config.base != base {
            return Err(Error::OtherModel { path, expected: config.base, found: base.to_owned() });
        }
        config.mode.check()?;
        config.mode.check_model(decoder.config().num_hidden_layers)?;
        config.encoder.check(&config.reader)?;
        let positive = config.embedding_scale.is_finite() && config.embedding_scale > 0.0;
        if !positive {
            return Err(malformed(format!("embedding_scale is {}; expected above 0", config.embedding_scale)));
        }
        let path = dir.as_ref().join(WEIGHTS);
        let tensors = read_tensors(&path)?;
        let weights = Weights::from_tensors(&config, decoder.config(), tensors, &path, decoder.device())?;
        Ok(Self { config, weights })
    }

    /// Writes the directory, which appears whole or not at all, with `extra` files beside the weights, each a name and
    /// its bytes.
    ///
    /// # Errors
    /// When `dir` exists already or writing fails.
    pub fn save(&self, dir: impl AsRef<Path>, stored: StoredType, extra: &[(&str, &[u8])]) -> Result<()> {
        let draft = Draft::new(dir.as_ref())?;
        self.write(&draft, stored)?;
        for (name, bytes) in extra {
            draft.write(name, bytes)?;
        }
        Ok(draft.publish()?)
    }

    /// Puts the two files into a draft.
    pub(crate) fn write(&self, draft: &Draft, stored: StoredType) -> lloco_lora::Result<()> {
        let path = draft.path(CONFIG);
        let json = serde_json::to_vec_pretty(&self.config);
        let json = json.map_err(|e| lloco_lora::Error::Malformed { path, detail: e.to_string() })?;
        draft.write(CONFIG, &json)?;
        draft.write(WEIGHTS, &tensor_bytes(&self.weights.parameters(), stored, &draft.path(WEIGHTS))?)
    }

    /// Mode, base and adapters.
    pub fn config(&self) -> &CompressorConfig {
        &self.config
    }

    /// The encoder with these weights.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when an option does not fit what was trained.
    pub fn encoder(&self, decoder: Arc<Decoder>, options: &EncoderOptions) -> Result<Box<dyn ContextEncoder>> {
        Ok(match &self.config.mode {
            Mode::AutoCompressor(_) => Box::new(AutoCompressor::trained(self, decoder, options)?),
            Mode::Pooled(_) => Box::new(Pooled::trained(self, decoder, options)?),
        })
    }

    /// SHA-256 of the base and all that summaries depend on; the reader is not among it.
    pub(crate) fn fingerprint(&self, settings: &str) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("trained compressor 1\n{}\n{settings}\n", self.config.base));
        self.hash(&mut hash, |name| name.starts_with("encoder.") || name.starts_with("connector."))?;
        // Scales follow from the adapter's shape and from the embeddings; dropout is for training alone.
        let shape = match &self.config.encoder {
            Tuning::Lora(lora) => format!("{:?}", lora.clone().with_dropout(0.0)),
            Tuning::Full => "full".into(),
        };
        hash.update(format!("{shape} {}\n", self.config.embedding_scale));
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Compressor {
    /// Adds the weights that `of` picks by name to a hash.
    pub(crate) fn hash(&self, hash: &mut Sha256, of: impl Fn(&str) -> bool) -> Result<()> {
        for (name, tensor) in self.weights.parameters().into_iter().filter(|(name, _)| of(name)) {
            hash.update(format!("{name} {:?}\n", tensor.dims()));
            lloco_lora::durable::values(&name, tensor)?.iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
        Ok(())
    }
}

impl Mode {
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::AutoCompressor(lengths) => lengths.check(),
            Self::Pooled(pooled) => pooled.check(),
        }
    }

    /// Layers of the model that read a document, of `all`.
    pub(crate) fn layers(&self, all: usize) -> usize {
        match self {
            Self::AutoCompressor(_) => all,
            Self::Pooled(pooled) => pooled.layers.unwrap_or(all),
        }
    }

    /// Checks what depends on how many layers the model has.
    fn check_model(&self, layers: usize) -> Result<()> {
        match self {
            Self::AutoCompressor(_) => Ok(()),
            Self::Pooled(pooled) => pooled.check_model(layers),
        }
    }
}

/// The context encoder of a model: that of the trained compressor in `compressor`, else the checkpoint's own
/// AutoCompressor.
///
/// # Errors
/// When an option does not fit, or the compressor is damaged or belongs to another model.
pub fn open(
    checkpoint: &Checkpoint,
    decoder: Arc<Decoder>,
    compressor: Option<&Path>,
    options: &EncoderOptions,
) -> Result<Box<dyn ContextEncoder>> {
    match compressor {
        Some(dir) => Compressor::load(dir, &decoder, &checkpoint.fingerprint())?.encoder(decoder, options),
        None => Ok(Box::new(AutoCompressor::load(checkpoint, decoder, options)?)),
    }
}

//! Weights on disk, behind one set of names whatever the file format.

mod gguf;
mod random;
mod safetensors;

#[cfg(feature = "flex")]
use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use sha2::{Digest, Sha256};

use self::{gguf::GgufWeights, random::RandomWeights, safetensors::Shards};
#[cfg(feature = "flex")]
use crate::gguf::BlockType;
use crate::{DecoderConfig, Error, Result, Tokenizer};

/// How a model's linear weights, embedding table and output head are held in memory.
///
/// The types below two bytes are for the CPU backend `flex`, whose kernels compute with them as they are. Other devices
/// refuse them with [`Error::InvalidSetting`].
///
/// On a CPU with tile registers (AMX), many rows meet all types but [`F32`](Self::F32) with both rounded to bf16, and so do
/// queries, keys and values: the same loss as of bf16 weights, and several times the speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WeightType {
    /// The smallest without measurable loss. On `flex`: quantised tensors of a GGUF file stay in blocks, of four bits (`Q4_0`,
    /// `Q4_1`, `Q4_K`) or of eight (`Q5_0`, `Q5_1`, `Q5_K`, `Q6_K`, `Q8_0`), multiplied with inputs of 16 bits; everything else
    /// as [`Bf16`](Self::Bf16). Elsewhere: bf16 where the device computes in it, else f32.
    ///
    /// `Q4_0`, `Q4_1`, `Q5_0` and `Q8_0` are the file's numbers. The scales of `Q4_K` are rounded to f16, by 2^-11 at most.
    /// `Q5_1`, `Q5_K` and `Q6_K` are quantised anew, with steps several times finer than the file's: no weight is off by more
    /// than 1/253 of the largest in its block of 32, as long as that is above 0.008. A tensor with a scale that f16 does not
    /// hold becomes bf16.
    #[default]
    Auto,
    /// 32-bit floats: exact, four bytes a weight.
    F32,
    /// bfloat16: two bytes a weight, products accumulated in f32. Weights of a file in another type are rounded to eight
    /// significant bits, which shows in no measurement yet.
    Bf16,
    /// At most 8.5 bits a weight: signed bytes, one scale for 32 of them (the numbers of GGUF's `Q8_0`), and inputs of 16
    /// bits. Quantised tensors of a GGUF file are taken as by [`Auto`](Self::Auto); other weights are rounded.
    Int8,
    /// 5 bits a weight: four-bit numbers, scale and minimum for 32 of them (the numbers of GGUF's `Q4_1`). The fastest, at
    /// a price: inputs are rounded to eight bits, and weights that a file holds in another type than `Q4_0`, `Q4_1` and `Q4_K`
    /// to four.
    Q4,
}

/// A model's weights and configuration, memory-mapped: a directory with `config.json` and safetensors
/// (one file or sharded), or one GGUF file.
///
/// Tensor names are those of Hugging Face's LLaMA, `model.layers.0.self_attn.q_proj.weight`.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: DecoderConfig,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Safetensors(Shards),
    Gguf(Box<GgufWeights>),
    Random(RandomWeights),
}

impl Checkpoint {
    /// Opens a directory or a `.gguf` file. A directory without safetensors may hold one GGUF file.
    ///
    /// # Errors
    /// When there is no checkpoint, a file is damaged, or the architecture is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            if let Some(shards) = Shards::open(path)? {
                let mut config = DecoderConfig::from_file(path)?;
                safetensors::add_generation_stops(path, &mut config)?;
                return Ok(Self { path: path.to_path_buf(), config, source: Source::Safetensors(shards) });
            }
            return Self::open_gguf(&only_gguf(path)?);
        }
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("gguf") => Self::open_gguf(path),
            _ if !path.exists() => {
                Err(Error::Io { path: path.to_path_buf(), source: std::io::ErrorKind::NotFound.into() })
            }
            _ => Err(Error::NoCheckpoint {
                path: path.to_path_buf(),
                detail: "give the directory that holds config.json and model.safetensors, or a .gguf file".into(),
            }),
        }
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let model = GgufWeights::open(path)?;
        let config = model.config()?;
        Ok(Self { path: path.to_path_buf(), config, source: Source::Gguf(Box::new(model)) })
    }

    /// Seeded random weights of the given shape, normal with standard deviation 0.02, norms at one.
    ///
    /// For measuring speed and memory at shapes whose weights are not at hand; such a model says nothing.
    pub fn random(config: DecoderConfig, seed: u64) -> Self {
        let path = PathBuf::from(format!("random weights, seed {seed}"));
        Self { path, config, source: Source::Random(RandomWeights::new(seed)) }
    }

    /// Where the checkpoint is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The checkpoint's tokenizer, from `tokenizer.json` or the GGUF's metadata.
    ///
    /// # Errors
    /// When there is none, it is damaged, or it makes ids beyond the model's vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match &self.source {
            Source::Safetensors(_) => Tokenizer::from_file(self.path.join("tokenizer.json"))?,
            Source::Gguf(model) => Tokenizer::from_gguf(model.file())?,
            Source::Random(_) => {
                let detail = "random weights have no tokenizer".into();
                return Err(Error::Tokenizer { path: self.path.clone(), detail });
            }
        };
        match tokenizer.max_id() {
            max_id if max_id as usize >= self.config.vocab_size => {
                Err(Error::TokenizerMismatch { path: self.path.clone(), max_id, vocab_size: self.config.vocab_size })
            }
            _ => Ok(tokenizer),
        }
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.source {
            Source::Safetensors(shards) => shards.shape(name),
            Source::Gguf(model) => model.shape(name),
            Source::Random(_) => None,
        }
    }

    /// Reads a tensor as f32, converting or dequantising what is stored.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape, or is stored in a type that cannot be read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        Ok(TensorData::new(self.values(name, shape)?, shape))
    }

    /// [`tensor`](Self::tensor), as plain numbers.
    pub(crate) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (values, found) = match &self.source {
            Source::Safetensors(shards) => shards.read(name, shape)?,
            Source::Gguf(model) => model.read(name, shape)?,
            Source::Random(weights) => (weights.read(name, shape), shape.to_vec()),
        };
        self.expect(name, shape, &found)?;
        Ok(values)
    }

    /// SHA-256 over the model's shape and every stored tensor, in hexadecimal: equal fingerprints mean equal
    /// models. Reads the whole checkpoint once.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.config.canonical());
        match &self.source {
            Source::Safetensors(shards) => shards.digest(&mut hash),
            Source::Gguf(model) => model.digest(&mut hash),
            Source::Random(weights) => hash.update(weights.seed().to_le_bytes()),
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How a tensor is stored and its blocks, rows in Hugging Face order; `None` where the file is no GGUF.
    #[cfg(feature = "flex")]
    pub(crate) fn blocks(&self, name: &str, shape: &[usize]) -> Result<Option<(BlockType, Cow<'_, [u8]>)>> {
        let Source::Gguf(model) = &self.source else { return Ok(None) };
        self.expect(name, shape, model.tensor(name)?.shape())?;
        model.blocks(name).map(Some)
    }

    /// Lets the system have the memory back that reading the file has taken so far.
    pub(crate) fn forget(&self) {
        match &self.source {
            Source::Safetensors(shards) => shards.forget(),
            Source::Gguf(model) => model.file().forget(),
            Source::Random(_) => {}
        }
    }

    fn expect(&self, name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
        match found == expected {
            true => Ok(()),
            false => Err(Error::ShapeMismatch {
                path: self.path.clone(),
                name: name.into(),
                expected: expected.to_vec(),
                found: found.to_vec(),
            }),
        }
    }
}

/// The one GGUF file of a directory.
fn only_gguf(dir: &Path) -> Result<PathBuf> {
    let io = |source| Error::Io { path: dir.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            found.push(path);
        }
    }
    match (found.pop(), found.len()) {
        (Some(path), 0) => Ok(path),
        (Some(_), _) => Err(Error::NoCheckpoint {
            path: dir.to_path_buf(),
            detail: "it has several .gguf files; name one of them".into(),
        }),
        (None, _) if dir.join("pytorch_model.bin").exists() => Err(Error::NoCheckpoint {
            path: dir.to_path_buf(),
            detail: "pytorch_model.bin is not read; convert it to model.safetensors".into(),
        }),
        (None, _) => Err(Error::NoCheckpoint {
            path: dir.to_path_buf(),
            detail: "looked for model.safetensors, model.safetensors.index.json and *.gguf".into(),
        }),
    }
}

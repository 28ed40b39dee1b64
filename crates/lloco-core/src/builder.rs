//! Putting a [`Lloco`] together.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use burn::tensor::Device;
use lloco_decoder::{Checkpoint, Decoder, WeightType};
use lloco_encoder::EncoderOptions;
use lloco_retrieval::Embedder;

use crate::{
    Error, Event, Lloco, ModelSource, Resolver, Result,
    device::default_device,
    digest::Hasher,
    event::Observer,
    prompt::Prompts,
    search::{Finder, Search},
    store::{EncoderInfo, LocalStore, Precision, Shard, StoreOptions},
};

/// Settings of a [`Lloco`]; see [`Lloco::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct LlocoBuilder {
    store: PathBuf,
    model: ModelSource,
    embedder: ModelSource,
    search: Search,
    candidates: Option<usize>,
    resolver: Resolver,
    device: Option<Device>,
    weights: WeightType,
    encoder: EncoderOptions,
    compressor: Option<PathBuf>,
    precision: Precision,
    shard: Shard,
    document_limit: u64,
    wait: Duration,
    read_only: bool,
    observer: Observer,
}

impl Default for LlocoBuilder {
    fn default() -> Self {
        Self {
            store: PathBuf::from("library"),
            model: ModelSource::default_model(),
            embedder: ModelSource::default_embedder(),
            search: Search::default(),
            candidates: None,
            resolver: Resolver::new(),
            device: None,
            weights: WeightType::Auto,
            encoder: EncoderOptions::default(),
            compressor: None,
            precision: Precision::F16,
            shard: Shard::ALL,
            document_limit: 128 << 20,
            wait: Duration::ZERO,
            read_only: false,
            observer: Observer::default(),
        }
    }
}

impl LlocoBuilder {
    /// The store's directory, made if missing; `library` by default.
    pub fn store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.store = directory.into();
        self
    }

    /// The language model that encodes and answers; by default [`ModelSource::default_model`].
    pub fn model(mut self, source: impl Into<ModelSource>) -> Self {
        self.model = source.into();
        self
    }

    /// The embedder that finds documents; by default [`ModelSource::default_embedder`].
    pub fn embedder(mut self, source: impl Into<ModelSource>) -> Self {
        self.embedder = source.into();
        self
    }

    /// How the documents that fit a question are found.
    pub fn search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// Compares a question with the vectors of so many passages only, those whose signs agree most with the question's;
    /// `None`, the default, is all of them. For libraries of millions of passages: 1,000 find nearly all that the exact
    /// search finds. Words, where they are searched, are always searched exactly.
    pub fn search_candidates(mut self, passages: Option<usize>) -> Self {
        self.candidates = passages;
        self
    }

    /// How models are found and fetched.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// Where to compute; by default the CPU if it is compiled in, else what burn chooses.
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// The float type of the model's weights.
    pub fn weights(mut self, weights: WeightType) -> Self {
        self.weights = weights;
        self
    }

    /// Lengths of segments and summaries.
    pub fn encoder(mut self, options: EncoderOptions) -> Self {
        self.encoder = options;
        self
    }

    /// A trained compressor's directory. Without one the model's own summary embeddings are used, if it has any.
    pub fn compressor(mut self, directory: impl Into<PathBuf>) -> Self {
        self.compressor = Some(directory.into());
        self
    }

    /// How summary vectors are stored; f16 by default.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Compresses only this share of the documents that are added, for several machines with a store each, which
    /// [`LocalStore::merge`] brings together afterwards. Adding then leaves the passages for search to the first
    /// time that something is asked, or added without a share.
    pub fn shard(mut self, shard: Shard) -> Self {
        self.shard = shard;
        self
    }

    /// The longest document that is taken, in bytes of text; 128 MiB by default. Reading one takes several times as
    /// much memory.
    pub fn document_limit(mut self, bytes: u64) -> Self {
        self.document_limit = bytes;
        self
    }

    /// How long to wait for another process that writes to the store; by default not at all.
    pub fn wait(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }

    /// Opens the store for asking only; other processes may then do the same.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sees every step of the long verbs; `Break` stops a verb with everything done so far kept.
    pub fn on_event(mut self, observer: impl Fn(&Event<'_>) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(observer);
        self
    }

    /// Opens the store and loads the models, fetching them first if need be.
    ///
    /// # Errors
    /// When a model cannot be found, fetched or loaded, or the store cannot be opened.
    pub fn build(self) -> Result<Lloco> {
        let device = self.device.unwrap_or_else(default_device);
        let store = match self.read_only {
            true => LocalStore::open_read_only(&self.store)?,
            false => StoreOptions::new().wait(self.wait).open(&self.store)?,
        };
        let checkpoint = Checkpoint::open(self.resolver.resolve(&self.model)?)?;
        let tokenizer = checkpoint.tokenizer()?;
        let decoder = Arc::new(Decoder::load(&checkpoint, self.weights, &device)?);
        let encoder = lloco_encoder::open(&checkpoint, decoder, self.compressor.as_deref(), &self.encoder)?;
        let embedder = Embedder::load(self.resolver.resolve(&self.embedder)?, &device)?;

        let mut fingerprint = Hasher::labelled("lloco encoder with tokenizer 1");
        fingerprint.field(encoder.fingerprint().as_bytes());
        fingerprint.field(tokenizer.fingerprint()?.as_bytes());
        let layout = encoder.layout();
        let size = |field: &'static str, value: usize| {
            u32::try_from(value).map_err(|_| {
                let expected = "a length below 2^32".into();
                Error::Encoder(lloco_encoder::Error::InvalidSetting { field, found: value.to_string(), expected })
            })
        };
        let info = EncoderInfo::new(
            fingerprint.finish().to_string(),
            size("segment_length", layout.segment_length)?,
            size("summary_length", layout.summary_length)?,
            size("hidden_size", encoder.decoder().config().hidden_size)?,
        )
        .accumulate(layout.accumulate)
        .recurrent(layout.recurrent)
        .precision(self.precision);

        let prompts = Prompts::new(tokenizer, encoder.decoder().config())?;
        let search = Finder::open(self.search, self.candidates, &store, &embedder)?;
        let (shard, document_limit, observer) = (self.shard, self.document_limit, self.observer);
        Ok(Lloco { store, encoder, info, embedder, prompts, search: search.into(), shard, document_limit, observer })
    }
}

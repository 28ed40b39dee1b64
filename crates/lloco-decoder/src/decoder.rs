//! The frozen transformer on a device.

use burn::tensor::{Device, FloatDType, Tensor};

use crate::{
    Checkpoint, DecoderConfig, Error, LinearAdapter, NoAdapter, Packing, Part, Prompt, Result, SavedModule, WeightType,
    at_once::at_once,
    attention::Context,
    layer::Layer,
    linear::Linear,
    norm::Norm,
    operations::{Operations, seen},
    ops::Seen,
    pass::{Pass, Rows},
    precision::{activations, cached, resolve},
    rope::RopeTables,
    weight::Weight,
};

/// A LLaMA-family language model. Its weights never change; adapters do the learning.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    device: Device,
    /// Float type of activations.
    dtype: FloatDType,
    /// Float type of keys and values in a cache.
    cache_dtype: FloatDType,
    /// Whether products may round their factors to bf16.
    rounded: bool,
    /// `[vocab, hidden]`.
    embed_tokens: Weight,
    layers: Vec<Layer>,
    norm: Norm,
    /// `[vocab, hidden]`; where the checkpoint ties them, the same matrix.
    lm_head: Weight,
    rope: RopeTables,
    /// Of all passes so far.
    pub(crate) operations: Operations,
}

impl Decoder {
    /// Loads the weights onto `device`, tensor by tensor.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape than the configuration says, or cannot be read; when a number does not
    /// fit the type of weights; [`Error::InvalidSetting`] for a type of weights that the device does not compute with.
    pub fn load(checkpoint: &Checkpoint, weights: WeightType, device: &Device) -> Result<Self> {
        let config = checkpoint.config().clone();
        let device = &device.clone().inner();
        let weights = resolve(weights, device);
        let vocab = [config.vocab_size, config.hidden_size];
        let embed_tokens = Weight::load(checkpoint, "model.embed_tokens.weight", vocab, weights, device)?;
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens.clone(),
            false => Weight::load(checkpoint, "lm_head.weight", vocab, weights, device)?,
        };
        let layers =
            (0..config.num_hidden_layers).map(|layer| Layer::load(checkpoint, &config, layer, weights, device));
        let decoder = Self {
            cache_dtype: cached(weights, device),
            rounded: weights != WeightType::F32,
            dtype: activations(weights, device),
            embed_tokens,
            layers: layers.collect::<Result<_>>()?,
            norm: Norm::load(checkpoint, "model.norm.weight", config.hidden_size, config.rms_norm_eps, device)?,
            lm_head,
            rope: RopeTables::new(&config, device),
            operations: Operations::default(),
            device: device.clone(),
            config,
        };
        tracing::info!(path = %checkpoint.path().display(), ?weights, ?device, "loaded decoder");
        Ok(decoder)
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The float type of activations.
    pub(crate) fn dtype(&self) -> FloatDType {
        self.dtype
    }

    /// The float type of keys and values in a cache.
    pub(crate) fn cache_dtype(&self) -> FloatDType {
        self.cache_dtype
    }

    /// The matrices that one decoded token is multiplied with: those of the layers, then the output head.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Weight> {
        self.layers.iter().flat_map(Layer::projections).map(Linear::weight).chain([&self.lm_head])
    }

    /// Looks token ids up: `[1, ids.len(), hidden]`.
    ///
    /// # Errors
    /// [`Error::OutOfVocabulary`] for an id without an embedding, [`Error::EmptyPrompt`] for no ids.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor<3>> {
        self.embed_with(ids, &NoAdapter)
    }

    /// [`embed`](Self::embed), with the adapter's replacement of the embedding if it has one.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_with(&self, ids: &[u32], adapter: &dyn LinearAdapter) -> Result<Tensor<3>> {
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let vocab_size = self.config.vocab_size;
        if let Some(position) = ids.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::OutOfVocabulary { id: ids[position], position, vocab_size });
        }
        let rows = match adapter.replaced(SavedModule::EmbedTokens) {
            Some(table) => Weight::Dense(table).rows(ids, &self.device),
            None => self.embed_tokens.rows(ids, &self.device),
        };
        Ok(rows.cast(self.dtype).unsqueeze())
    }

    /// A prompt's parts as one run of input rows, `[1, positions, hidden]`.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::OutOfVocabulary`], or [`Error::Mismatch`] for embedding rows of another width.
    pub fn embed_prompt(&self, prompt: &Prompt, adapter: &dyn LinearAdapter) -> Result<Tensor<3>> {
        let mut rows = Vec::with_capacity(prompt.parts().len());
        for part in prompt.parts().iter().filter(|part| part.positions() > 0) {
            rows.push(match part {
                Part::Text(ids) => self.embed_with(ids, adapter)?,
                Part::Embeddings(rows) => {
                    self.check("width of embedding rows", self.config.hidden_size, rows.dims()[1])?;
                    rows.clone().to_device(&self.device).cast(self.dtype).unsqueeze()
                }
            });
        }
        match rows.len() {
            0 => Err(Error::EmptyPrompt),
            1 => Ok(rows.swap_remove(0)),
            _ => Ok(Tensor::cat(rows, 1)),
        }
    }

    /// Runs the transformer over input rows `[batch, seq, hidden]`.
    ///
    /// Returns hidden rows after the final RMSNorm, f32, `[batch, rows, hidden]`. Where `input` or the adapter is
    /// tracked by autodiff, so is the result.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when input, cache and padding do not fit the model or each other; [`Error::Io`] when a
    /// [spilled](crate::KvCache::spilled) cache cannot be read: it holds what it held before, then.
    pub fn forward(&self, input: Tensor<3>, pass: Pass<'_>) -> Result<Tensor<3>> {
        at_once(&self.device, || self.run(input, pass))
    }

    fn run(&self, input: Tensor<3>, mut pass: Pass<'_>) -> Result<Tensor<3>> {
        let [batch, seq, width] = input.dims();
        self.check("width of input rows", self.config.hidden_size, width)?;
        if seq == 0 || batch == 0 {
            return Err(Error::EmptyPrompt);
        }
        if !pass.padding.is_empty() {
            self.check("paddings for a batch", batch, pass.padding.len())?;
        }
        let past = match &pass.cache {
            Some(cache) => {
                self.check("sequences in the KV cache", batch, cache.batch())?;
                cache.len()
            }
            None => 0,
        };
        let wanted = match pass.rows {
            Rows::All => seq,
            Rows::Last(n) => n.clamp(1, seq),
        };
        let layers = pass.layers.unwrap_or(self.layers.len()).clamp(1, self.layers.len());
        if layers < self.layers.len() {
            self.check("KV caches beside a limit of layers", 0, pass.cache.iter().len())?;
        }
        if pass.bidirectional {
            self.check("KV caches beside attention in both directions", 0, pass.cache.iter().len())?;
            self.check("paddings beside attention in both directions", 0, pass.padding.len())?;
            self.check("packings beside attention in both directions", 0, pass.packing.iter().len())?;
        }
        let (cos, sin) = match pass.packing {
            Some(packing) => {
                self.check("rows of a packing", seq, packing.rows())?;
                self.check("sequences beside a packing", 1, batch)?;
                self.check("rows of a packing to return", seq, wanted)?;
                self.check("paddings beside a packing", 0, pass.padding.len())?;
                self.check("KV caches beside a packing", 0, pass.cache.iter().len())?;
                let (cos, sin) = self.rope.upto(packing.longest());
                let positions = packing.positions(&self.device);
                (cos.select(0, positions.clone()), sin.select(0, positions))
            }
            None => self.rope.upto(past + seq),
        };
        let mut context = Context {
            adapter: pass.adapter.unwrap_or(&NoAdapter),
            cos: &cos,
            sin: &sin,
            past,
            seen: Seen {
                padding: pass.padding.into(),
                causal: !pass.bidirectional,
                rounded: self.rounded,
                pieces: pass.packing.map_or(&[][..], Packing::pieces).into(),
            },
            rows: seq,
            kept: pass.kept.map_or(seq, |kept| kept.min(seq)),
        };
        let mut x = input.cast(self.dtype);
        for (index, layer) in self.layers.iter().take(layers).enumerate() {
            if index + 1 == layers {
                context.rows = wanted;
            }
            let cache = pass.cache.as_mut().and_then(|cache| cache.layer(index));
            x = layer.forward(x, &context, cache)?;
        }
        if let Some(cache) = pass.cache {
            cache.advance(context.kept);
        }
        let pairs = |rows: usize| match pass.packing {
            Some(packing) => packing.pairs(),
            None if pass.bidirectional => (rows * seq) as f64,
            None => seen(rows, past + seq),
        };
        let operations = batch as f64 * self.config.operations_of(layers, [seq, wanted], pairs);
        self.operations.add(operations, x.is_autodiff());
        Ok(self.norm.forward(x).cast(FloatDType::F32))
    }

    /// Scores of the next token for each hidden row: `[batch, rows, hidden]` -> f32 `[batch, rows, vocab]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.logits_with(hidden, &NoAdapter)
    }

    /// [`logits`](Self::logits), with the adapter's replacement of the head if it has one.
    pub fn logits_with(&self, hidden: Tensor<3>, adapter: &dyn LinearAdapter) -> Tensor<3> {
        let (head, hidden) = self.head(hidden.cast(self.dtype), adapter);
        let [batch, rows, width] = hidden.dims();
        self.operations.add(2.0 * (batch * rows * width * head.outputs()) as f64, hidden.is_autodiff());
        head.product(hidden).cast(FloatDType::F32)
    }

    /// The cross entropy, in nats, of hidden rows `[rows, hidden]` with the token that follows each: f32 `[rows]`.
    /// Differentiable in `hidden`, and in the adapter's replacement of the head if it has one.
    ///
    /// On the CPU backend `flex` the scores `[rows, vocab]` never exist together, unless the adapter replaces the head.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number of targets than rows or rows of another width, [`Error::OutOfVocabulary`]
    /// for a target without a score.
    pub fn losses(&self, hidden: Tensor<2>, targets: &[u32], adapter: &dyn LinearAdapter) -> Result<Tensor<1>> {
        let [rows, width] = hidden.dims();
        self.check("width of hidden rows", self.config.hidden_size, width)?;
        self.check("targets of hidden rows", rows, targets.len())?;
        let (head, hidden) = self.head(hidden.cast(self.dtype), adapter);
        let vocab_size = head.outputs();
        if let Some(position) = targets.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::OutOfVocabulary { id: targets[position], position, vocab_size });
        }
        self.operations.add(2.0 * (rows * width * vocab_size) as f64, hidden.is_autodiff());
        Ok(head.losses(hidden, targets))
    }

    /// The output head, and `hidden` beside it: tracked by autodiff if the head is.
    fn head<const D: usize>(&self, hidden: Tensor<D>, adapter: &dyn LinearAdapter) -> (Weight, Tensor<D>) {
        match adapter.replaced(SavedModule::LmHead) {
            Some(head) if head.is_autodiff() && !hidden.is_autodiff() => {
                (Weight::Dense(head), Tensor::from_inner(hidden))
            }
            Some(head) => (Weight::Dense(head), hidden),
            None => (self.lm_head.clone(), hidden),
        }
    }

    fn check(&self, what: &'static str, expected: usize, found: usize) -> Result<()> {
        match expected == found {
            true => Ok(()),
            false => Err(Error::Mismatch { what, expected: expected.to_string(), found: found.to_string() }),
        }
    }
}

//! An adapter as data, and what it adds to the model's projections.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use lloco_decoder::{DecoderConfig, LinearAdapter, SavedModule, Site, low_rank};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{Error, LoraConfig, Result, config::SAVED_MODULES};

/// A LoRA adapter: two low-rank factors for each adapted projection, and modules replaced as a whole.
///
/// The factors stay apart: `delta = scale * (x A^T) B^T` costs little beside the projection itself, and no
/// gradient of a full weight ever exists. They are f32 whatever the model's weights are.
///
/// Tensors are handles: cloning an adapter copies no values.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub(crate) config: LoraConfig,
    pub(crate) factors: BTreeMap<Site, Factors>,
    /// Module name -> weight.
    pub(crate) saved: BTreeMap<String, Tensor<2>>,
}

/// The two factors at one site.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    /// `[rank, in]`.
    pub(crate) a: Tensor<2>,
    /// `[out, rank]`.
    pub(crate) b: Tensor<2>,
    pub(crate) scale: f64,
}

impl Adapter {
    /// A new adapter: A uniform within `1 / sqrt(in)` (PEFT's Kaiming initialisation), B zero, so that it changes
    /// nothing yet. The same seed gives the same adapter.
    ///
    /// Modules of `modules_to_save` start from weights that only the model has: give them by
    /// [`with_saved`](Self::with_saved).
    ///
    /// # Errors
    /// [`Error::Setting`] as [`LoraConfig::sites`].
    pub fn init(config: &LoraConfig, model: &DecoderConfig, seed: u64, device: &Device) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let factors = config.sites(model)?.into_iter().map(|(site, shape)| {
            let bound = 1.0 / (shape.input as f32).sqrt();
            let values: Vec<f32> = (0..shape.rank * shape.input).map(|_| rng.random_range(-bound..bound)).collect();
            let a = Tensor::from_data(TensorData::new(values, [shape.rank, shape.input]), device);
            let b = Tensor::zeros([shape.output, shape.rank], device);
            (site, Factors { a, b, scale: shape.scale })
        });
        Ok(Self { config: config.clone(), factors: factors.collect(), saved: BTreeMap::new() })
    }

    /// Adds or replaces a module's whole weight: `embed_summary` `[n, hidden]`, `embed_tokens` or `lm_head`
    /// `[vocab, hidden]`.
    ///
    /// # Errors
    /// [`Error::Setting`] for another module.
    pub fn with_saved(mut self, module: &str, weight: Tensor<2>) -> Result<Self> {
        if !SAVED_MODULES.contains(&module) {
            return Err(Error::setting("modules_to_save", module, format!("one of {}", SAVED_MODULES.join(", "))));
        }
        if !self.config.modules_to_save.iter().any(|listed| listed == module) {
            self.config.modules_to_save.push(module.to_owned());
        }
        self.saved.insert(module.to_owned(), weight);
        Ok(self)
    }

    /// The factors alone, without modules saved as a whole.
    #[must_use]
    pub fn without_saved(&self) -> Self {
        let config = LoraConfig { modules_to_save: Vec::new(), ..self.config.clone() };
        Self { config, factors: self.factors.clone(), saved: BTreeMap::new() }
    }

    /// Ranks, scales and targets.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The adapted sites, in order.
    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        self.factors.keys().copied()
    }

    /// The whole weight of a module, if the adapter holds it; see [`with_saved`](Self::with_saved).
    pub fn saved(&self, module: &str) -> Option<&Tensor<2>> {
        self.saved.get(module)
    }

    /// The adapter's weight at `site` in full, `scale * B A`, `[out, in]`; `None` where it has none.
    ///
    /// Adding it to the model's own weight merges the adapter, subtracting it undoes that.
    pub fn merged_delta(&self, site: Site) -> Option<Tensor<2>> {
        let Factors { a, b, scale } = self.factors.get(&site)?;
        Some(b.clone().matmul(a.clone()).mul_scalar(*scale))
    }
}

impl LinearAdapter for Adapter {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        match self.factors.get(&site) {
            Some(Factors { a, b, scale }) => low_rank(output, input.clone(), a, b, *scale),
            None => output,
        }
    }

    fn adapts(&self, site: Site) -> bool {
        self.factors.contains_key(&site)
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        let name = match module {
            SavedModule::EmbedTokens => "embed_tokens",
            SavedModule::LmHead => "lm_head",
        };
        self.saved.get(name).cloned()
    }
}

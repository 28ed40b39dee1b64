//! Which projections are adapted, with what rank and scale.

use std::collections::{BTreeMap, BTreeSet};

use lloco_decoder::{DecoderConfig, Projection, Site};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, targets::Matcher};

/// The shape of a LoRA adapter. Field names and meanings are those of PEFT's `adapter_config.json`.
///
/// The default is the published recipe for finetuning on a group of documents: rank 8, alpha 16, dropout 0.05
/// on the four attention projections.
///
/// ```
/// use lloco_lora::LoraConfig;
/// let config = LoraConfig::default().with_rank(16, 32.0).with_targets(["q_proj", "v_proj"]);
/// assert_eq!(config.r, 16);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LoraConfig {
    /// Rank of the factors.
    pub r: usize,
    /// The delta is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Share of the input's elements that training sets to zero before the first factor.
    pub lora_dropout: f64,
    /// The adapted projections.
    pub target_modules: Targets,
    /// Projections left out of [`target_modules`](Self::target_modules).
    pub exclude_modules: Option<Targets>,
    /// The adapted layers; `None` for all.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Scales by `lora_alpha / sqrt(r)` instead (rank-stabilised LoRA, arXiv 2312.03732).
    pub use_rslora: bool,
    /// Other ranks for the modules that a pattern matches.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas for the modules that a pattern matches.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules that are trained and stored whole: `embed_summary`, `embed_tokens`, `lm_head`.
    pub modules_to_save: Vec<String>,
}

/// Which modules are meant: a list of names, or one pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// `all-linear`, or a regular expression over full module names such as `model.layers.0.self_attn.q_proj`.
    Pattern(String),
    /// Names, or ends of names behind a dot, such as `q_proj`.
    Names(Vec<String>),
}

/// Rank, scale and shape of the factors at one site.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SiteShape {
    /// Rank of the factors.
    pub rank: usize,
    /// What the product of the factors is multiplied by.
    pub scale: f64,
    /// Width of the projection's input.
    pub input: usize,
    /// Width of the projection's output.
    pub output: usize,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        Self {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: Targets::Names(names.map(String::from).into()),
            exclude_modules: None,
            layers_to_transform: None,
            use_rslora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// Sets rank and alpha.
    #[must_use]
    pub fn with_rank(mut self, r: usize, lora_alpha: f64) -> Self {
        (self.r, self.lora_alpha) = (r, lora_alpha);
        self
    }

    /// Sets the dropout of training.
    #[must_use]
    pub fn with_dropout(mut self, lora_dropout: f64) -> Self {
        self.lora_dropout = lora_dropout;
        self
    }

    /// Adapts the projections of these names, for example `["q_proj", "v_proj"]`.
    #[must_use]
    pub fn with_targets<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.target_modules = Targets::Names(names.into_iter().map(Into::into).collect());
        self
    }

    /// Adapts all seven projections of each layer.
    #[must_use]
    pub fn with_all_linear(mut self) -> Self {
        self.target_modules = Targets::Pattern("all-linear".into());
        self
    }

    /// Trains and stores these modules whole.
    #[must_use]
    pub fn with_modules_to_save<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.modules_to_save = names.into_iter().map(Into::into).collect();
        self
    }

    /// The adapted sites of a model, with the shape of their factors.
    ///
    /// # Errors
    /// [`Error::Setting`] when a value is out of range, or when a target names nothing in the model that can be
    /// adapted.
    pub fn sites(&self, model: &DecoderConfig) -> Result<BTreeMap<Site, SiteShape>> {
        self.check()?;
        let targets = Matcher::new("target_modules", &self.target_modules)?;
        targets.check_all_found(model)?;
        let excluded = self.exclude_modules.as_ref().map(|targets| Matcher::new("exclude_modules", targets));
        let excluded = excluded.transpose()?;
        let ranks = patterns("rank_pattern", &self.rank_pattern)?;
        let alphas = patterns("alpha_pattern", &self.alpha_pattern)?;
        let mut sites = BTreeMap::new();
        for site in every_site(model) {
            let path = site.path();
            let chosen = self.layers_to_transform.as_ref().is_none_or(|layers| layers.contains(&site.layer));
            if !chosen || !targets.matches(&path) || excluded.as_ref().is_some_and(|excluded| excluded.matches(&path)) {
                continue;
            }
            let rank = one_of("rank_pattern", &ranks, &path)?.unwrap_or(self.r);
            let alpha = one_of("alpha_pattern", &alphas, &path)?.unwrap_or(self.lora_alpha);
            let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            let [output, input] = weight_shape(model, site.projection);
            sites.insert(site, SiteShape { rank, scale: alpha / divisor, input, output });
        }
        match sites.is_empty() {
            true => Err(Error::setting("target_modules", self.target_modules.describe(), "it matches no projection")),
            false => Ok(sites),
        }
    }

    /// Checks everything that can be checked without a model.
    pub(crate) fn check(&self) -> Result<()> {
        let ranks = self.rank_pattern.iter().map(|(key, &rank)| (format!("rank_pattern.{key}"), rank));
        for (field, rank) in ranks.chain([("r".into(), self.r)]) {
            if !(1..=1 << 16).contains(&rank) {
                return Err(Error::setting(&field, rank, "a rank is at least 1 and at most 65536"));
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(key, &alpha)| (format!("alpha_pattern.{key}"), alpha));
        for (field, alpha) in alphas.chain([("lora_alpha".into(), self.lora_alpha)]) {
            if !(alpha.is_finite() && alpha > 0.0) {
                return Err(Error::setting(&field, alpha, "alpha is a positive number"));
            }
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return Err(Error::setting("lora_dropout", self.lora_dropout, "a share from 0 up to, not including, 1"));
        }
        let known: BTreeSet<&str> = SAVED_MODULES.into();
        match self.modules_to_save.iter().find(|name| !known.contains(name.as_str())) {
            Some(name) => Err(Error::setting("modules_to_save", name, format!("one of {}", SAVED_MODULES.join(", ")))),
            None => Ok(()),
        }
    }
}

impl Targets {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Pattern(pattern) => pattern.clone(),
            Self::Names(names) => format!("{names:?}"),
        }
    }
}

/// Modules that an adapter may hold whole.
pub(crate) const SAVED_MODULES: [&str; 3] = ["embed_summary", "embed_tokens", "lm_head"];

/// Every linear projection of a model, in order.
pub(crate) fn every_site(model: &DecoderConfig) -> impl Iterator<Item = Site> {
    let layers = 0..model.num_hidden_layers;
    layers.flat_map(|layer| Projection::ALL.map(|projection| Site { layer, projection }))
}

/// `[out, in]` of a projection's weight.
fn weight_shape(model: &DecoderConfig, projection: Projection) -> [usize; 2] {
    let (hidden, inner) = (model.hidden_size, model.intermediate_size);
    let (wide, narrow) = (model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim);
    match projection {
        Projection::Query => [wide, hidden],
        Projection::Key | Projection::Value => [narrow, hidden],
        Projection::Output => [hidden, wide],
        Projection::Gate | Projection::Up => [inner, hidden],
        Projection::Down => [hidden, inner],
    }
}

fn patterns<T: Copy>(field: &'static str, map: &BTreeMap<String, T>) -> Result<Vec<(Matcher, T)>> {
    map.iter().map(|(key, &value)| Ok((Matcher::suffix(field, key)?, value))).collect()
}

/// The value of the pattern that matches; several that disagree are an error, since their order is lost in JSON.
fn one_of<T: Copy + PartialEq>(field: &str, patterns: &[(Matcher, T)], path: &str) -> Result<Option<T>> {
    let mut found = patterns.iter().filter(|(matcher, _)| matcher.matches(path)).map(|&(_, value)| value);
    let first = found.next();
    match found.all(|value| Some(value) == first) {
        true => Ok(first),
        false => Err(Error::setting(field, path, "at most one pattern may match a module")),
    }
}

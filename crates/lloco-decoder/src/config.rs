//! The architecture of a model, read from the hub's `config.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The shape of a LLaMA-family model. Field names are those of the hub's `config.json`.
///
/// ```
/// # use lloco_decoder::DecoderConfig;
/// let json = r#"{"model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 160,
///     "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
///     "max_position_embeddings": 512, "rms_norm_eps": 1e-5}"#;
/// let config = DecoderConfig::from_json(json, "config.json".as_ref())?;
/// assert_eq!(config.head_dim, 16);
/// # Ok::<_, lloco_decoder::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// `llama`, `mistral`, `qwen2` or `qwen3`.
    pub model_type: String,
    /// Entries of the token embedding.
    pub vocab_size: usize,
    /// Width of a hidden row.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Positions that the model was trained for. Longer inputs are computed, not refused.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// How rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Whether the output head is the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the MLP's projections have biases.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalised per head (Qwen3).
    pub qk_norm: bool,
    /// Token that opens a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation.
    pub eos_token_ids: Vec<u32>,
}

/// How rotary frequencies are stretched to reach beyond the positions of pretraining.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths longer than `original_max_position_embeddings / low_freq_factor` are low.
        low_freq_factor: f64,
        /// Wavelengths shorter than `original_max_position_embeddings / high_freq_factor` are high.
        high_freq_factor: f64,
        /// Positions of pretraining.
        original_max_position_embeddings: f64,
    },
    /// One divisor for each of the `head_dim / 2` frequencies, as GGUF files store them.
    Factors(Vec<f32>),
}

/// Families whose layers this crate implements.
const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Fields that do not change what the model computes at inference, or that [`Raw`] reads.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "accumulate_summary", "architectures", "attention_bias", "attention_dropout", "auto_map", "bad_words_ids",
    "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "head_dim",
    "hidden_act", "hidden_size", "id2label", "initializer_range", "intermediate_size", "is_decoder",
    "is_llama_config", "label2id", "layer_types", "length_penalty", "max_length", "max_position_embeddings",
    "max_sequence_length", "max_window_layers", "min_length", "mlp_bias", "model_type", "name",
    "no_repeat_ngram_size", "num_attention_heads", "num_beam_groups", "num_beams", "num_hidden_layers",
    "num_key_value_heads", "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores",
    "pad_token_id", "prefix", "pretraining_tp", "problem_type", "randomize_substeps", "remove_invalid_values",
    "repetition_penalty", "return_dict", "return_dict_in_generate", "rms_norm_eps", "rope_parameters", "rope_scaling",
    "rope_theta", "segment_lengths", "segments_per_substep", "sep_token_id", "sliding_window", "summary_length",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_word_embeddings",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "training_substeps", "transformers.js_config",
    "transformers_version", "typical_p", "unk_token_id", "use_bfloat16", "use_cache", "use_sliding_window",
    "vocab_size",
];

/// `config.json` as it stands.
#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_positions")]
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    #[serde(alias = "rope_parameters")]
    rope_scaling: Option<Map<String, Value>>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

fn default_positions() -> usize {
    2048
}

fn default_eps() -> f64 {
    1e-6
}

impl DecoderConfig {
    /// Reads `config.json`, or a directory that holds one.
    ///
    /// # Errors
    /// When the file cannot be read, is not JSON, lacks a field, or asks for something unsupported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("config.json") } else { path.to_path_buf() };
        let json = fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        Self::from_json(&json, &path)
    }

    /// Parses the text of a `config.json`; `origin` names it in errors.
    ///
    /// # Errors
    /// When the text is not JSON, lacks a field, or asks for something unsupported: an unknown field with
    /// a value other than `null`, `false` or empty counts, since it may change what the model computes.
    pub fn from_json(json: &str, origin: &Path) -> Result<Self> {
        let malformed = |e: serde_json::Error| Error::Malformed { path: origin.to_path_buf(), detail: e.to_string() };
        let mut fields: Map<String, Value> = serde_json::from_str(json).map_err(malformed)?;
        // Newer files say `"rope_parameters": {..}`, some say both and leave one null.
        fields.retain(|_, value| !value.is_null());
        if fields.contains_key("rope_scaling") {
            fields.remove("rope_parameters");
        }
        let check = Checker { origin };
        check.unsupported(&fields)?;
        let raw: Raw = serde_json::from_value(Value::Object(fields)).map_err(malformed)?;
        let rope = check.rope(&raw)?;
        let config = Self {
            qkv_bias: raw.attention_bias.unwrap_or(raw.model_type == "qwen2"),
            output_bias: raw.attention_bias.unwrap_or(false) && raw.model_type != "qwen2",
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            qk_norm: raw.model_type == "qwen3",
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: match (raw.head_dim, raw.num_attention_heads) {
                (Some(dim), _) => dim,
                (None, 0) => 0,
                // Qwen3 fixes 128 where nothing is said; the others divide.
                (None, _) if raw.model_type == "qwen3" => 128,
                (None, heads) => raw.hidden_size / heads,
            },
            max_position_embeddings: raw.max_position_embeddings,
            rms_norm_eps: raw.rms_norm_eps,
            rope_theta: rope.0,
            rope_scaling: rope.1,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            bos_token_id: raw.bos_token_id,
            eos_token_ids: match raw.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            model_type: raw.model_type,
        };
        check.sizes(&config)?;
        Ok(config)
    }

    /// The fields that decide what the model computes, in a fixed spelling, for fingerprints.
    pub(crate) fn canonical(&self) -> String {
        let Self { vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, .. } = self;
        let Self { num_key_value_heads, head_dim, rms_norm_eps, rope_theta, rope_scaling, tie_word_embeddings, .. } =
            self;
        let Self { qkv_bias, output_bias, mlp_bias, qk_norm, .. } = self;
        format!(
            "{vocab_size} {hidden_size} {intermediate_size} {num_hidden_layers} {num_attention_heads} {num_key_value_heads} \
             {head_dim} {rms_norm_eps:e} {rope_theta:e} {rope_scaling:?} {tie_word_embeddings} {qkv_bias} {output_bias} \
             {mlp_bias} {qk_norm}\n"
        )
    }

    /// Number of parameters of the model, tied embeddings counted once.
    pub fn num_parameters(&self) -> usize {
        let attention = self.hidden_size * self.head_dim * 2 * (self.num_attention_heads + self.num_key_value_heads);
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        let embeddings = self.vocab_size * self.hidden_size * if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * (attention + mlp + 2 * self.hidden_size) + embeddings + self.hidden_size
    }
}

/// Turns questionable fields into errors that name the file.
struct Checker<'a> {
    origin: &'a Path,
}

impl Checker<'_> {
    fn path(&self) -> PathBuf {
        self.origin.to_path_buf()
    }

    fn refuse(&self, field: &str, value: &Value, supported: &str) -> Error {
        Error::Unsupported {
            path: self.path(),
            field: field.into(),
            value: value.to_string(),
            supported: supported.into(),
        }
    }

    fn invalid(&self, field: &str, detail: impl Into<String>) -> Error {
        Error::InvalidField { path: self.path(), field: field.into(), detail: detail.into() }
    }

    fn unsupported(&self, fields: &Map<String, Value>) -> Result<()> {
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        match text("model_type") {
            Some(family) if MODEL_TYPES.contains(&family) => {}
            Some(family) => return Err(self.refuse("model_type", &family.into(), &MODEL_TYPES.join(", "))),
            None => return Err(self.invalid("model_type", "is missing")),
        }
        if let Some(act) = fields.get("hidden_act").filter(|act| !matches!(act.as_str(), Some("silu" | "swish"))) {
            return Err(self.refuse("hidden_act", act, "silu"));
        }
        let windowed = fields.get("use_sliding_window").and_then(Value::as_bool).unwrap_or(true);
        let positions = fields.get("max_position_embeddings").and_then(Value::as_u64).unwrap_or(0);
        if let Some(window) = fields.get("sliding_window").filter(|_| windowed)
            && window.as_u64().is_none_or(|window| window < positions)
        {
            return Err(self.refuse("sliding_window", window, "null, or a window of at least max_position_embeddings"));
        }
        if let Some(types) = fields.get("layer_types")
            && types.as_array().is_none_or(|types| types.iter().any(|t| t != "full_attention"))
        {
            return Err(self.refuse("layer_types", types, "full_attention in every layer"));
        }
        let neutral = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        };
        let unknown = |key: &str| !key.starts_with('_') && !HARMLESS.contains(&key);
        match fields.iter().find(|(key, value)| unknown(key) && !neutral(value)) {
            Some((key, value)) => Err(self.refuse(key, value, "models without this field")),
            None => Ok(()),
        }
    }

    /// Base and scaling of the rotary embedding.
    fn rope(&self, raw: &Raw) -> Result<(f64, RopeScaling)> {
        let Some(fields) = &raw.rope_scaling else {
            return Ok((raw.rope_theta.unwrap_or(10_000.0), RopeScaling::None));
        };
        let number = |key: &str| {
            let value = fields.get(key).and_then(Value::as_f64).filter(|value| value.is_finite() && *value > 0.0);
            value.ok_or_else(|| self.invalid(&format!("rope_scaling.{key}"), "must be a positive number"))
        };
        let kind = fields.get("rope_type").or_else(|| fields.get("type"));
        let scaling = match kind.and_then(Value::as_str) {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: number("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: number("original_max_position_embeddings")?,
            },
            Some(other) => return Err(self.refuse("rope_scaling.rope_type", &other.into(), "default, linear, llama3")),
        };
        let theta = if fields.contains_key("rope_theta") { Some(number("rope_theta")?) } else { raw.rope_theta };
        Ok((theta.unwrap_or(10_000.0), scaling))
    }

    fn sizes(&self, config: &DecoderConfig) -> Result<()> {
        let sizes = [
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("max_position_embeddings", config.max_position_embeddings),
        ];
        for (field, size) in sizes {
            if size == 0 || size > 1 << 24 {
                return Err(self.invalid(field, format!("= {size} makes no sense")));
            }
        }
        if !config.head_dim.is_multiple_of(2) {
            return Err(self.invalid("head_dim", format!("= {} must be even", config.head_dim)));
        }
        if !config.num_attention_heads.is_multiple_of(config.num_key_value_heads) {
            let (heads, kv) = (config.num_attention_heads, config.num_key_value_heads);
            return Err(
                self.invalid("num_key_value_heads", format!("= {kv} does not divide num_attention_heads = {heads}"))
            );
        }
        for (field, value) in [("rms_norm_eps", config.rms_norm_eps), ("rope_theta", config.rope_theta)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(self.invalid(field, format!("= {value} must be a positive number")));
            }
        }
        Ok(())
    }
}

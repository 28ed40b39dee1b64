//! A GGUF file in the names and conventions of Hugging Face checkpoints.
//!
//! Three things differ. Names: one table, [`hub_name`]. The architecture: metadata instead of
//! `config.json`, translated by [`Gguf::hub_config`]. And in files of architecture `llama` the rows of Q and K
//! are permuted, so that the two halves of each rotary pair stand side by side: [`unpermute_rows`] puts
//! them back.

use std::borrow::Cow;

use serde_json::{Map, json};

use super::{Gguf, TensorInfo, Value};
use crate::{Error, Result};

/// Architectures, and whether their files hold Q and K permuted.
const ARCHITECTURES: [(&str, bool); 3] = [("llama", true), ("qwen2", false), ("qwen3", false)];

/// Tensors outside the layers.
const MODEL_NAMES: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Tensors of layer `N`: `blk.N.` and `model.layers.N.`.
const LAYER_NAMES: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The tensor of Llama 3's rotary scaling: no weight, see [`Gguf::rope_factors`].
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The Hugging Face name of a GGUF tensor, if there is one.
///
/// ```
/// # use lloco_decoder::gguf::hub::hub_name;
/// assert_eq!(hub_name("blk.7.attn_q.weight").as_deref(), Some("model.layers.7.self_attn.q_proj.weight"));
/// assert_eq!(hub_name("output.weight").as_deref(), Some("lm_head.weight"));
/// assert_eq!(hub_name("blk.7.ssm_a.weight"), None);
/// ```
pub fn hub_name(name: &str) -> Option<String> {
    let (module, suffix) = name.rsplit_once('.').filter(|(_, suffix)| matches!(*suffix, "weight" | "bias"))?;
    let find = |table: &[(&str, &'static str)], module: &str| {
        table.iter().find(|(gguf, _)| *gguf == module).map(|(_, hub)| *hub)
    };
    if let Some((layer, module)) = module.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        let layer: u32 = layer.parse().ok()?;
        return Some(format!("model.layers.{layer}.{}.{suffix}", find(&LAYER_NAMES, module)?));
    }
    Some(format!("{}.{suffix}", find(&MODEL_NAMES, module)?))
}

/// Puts interleaved rotary rows back into halves: within each head, row `2i` becomes row `i` and row `2i + 1`
/// becomes row `head_dim / 2 + i`.
///
/// `rows` is `[heads * head_dim, row]` of anything: f32 values, the entries of a bias (`row` 1), or the bytes
/// of quantised rows. `row` is the length of one row.
///
/// ```
/// # use lloco_decoder::gguf::hub::unpermute_rows;
/// assert_eq!(unpermute_rows(&[0, 3, 1, 4, 2, 5], 1, 1), [0, 1, 2, 3, 4, 5]);
/// ```
pub fn unpermute_rows<T: Copy>(rows: &[T], heads: usize, row: usize) -> Vec<T> {
    let head_dim = rows.len() / (heads * row).max(1);
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact((head_dim * row).max(1)) {
        for first in 0..2 {
            out.extend(head.chunks_exact(row).skip(first).step_by(2).flatten());
        }
    }
    out
}

impl Gguf {
    /// The architecture, one of `llama`, `qwen2`, `qwen3`.
    ///
    /// # Errors
    /// When the file names none or another one.
    pub fn architecture(&self) -> Result<&str> {
        const KEY: &str = "general.architecture";
        let name = self.text(KEY)?.ok_or_else(|| self.invalid(KEY, "is missing".into()))?;
        if ARCHITECTURES.iter().any(|(known, _)| *known == name) {
            return Ok(name);
        }
        Err(self.unsupported(KEY, name, &ARCHITECTURES.map(|(name, _)| name).join(", ")))
    }

    /// The model's tensors under their Hugging Face names.
    ///
    /// # Errors
    /// When the file holds a tensor that has no such name: the model computes something unknown.
    pub fn hub_tensors(&self) -> Result<Vec<(String, &TensorInfo)>> {
        let weights = self.tensors().filter(|tensor| tensor.name() != ROPE_FACTORS);
        weights
            .map(|tensor| match hub_name(tensor.name()) {
                Some(name) => Ok((name, tensor)),
                None => Err(self.unsupported("tensor", tensor.name(), "the tensors of a LLaMA-family model")),
            })
            .collect()
    }

    /// The number of heads whose rows stand interleaved in this tensor, or `None` where rows stand as in
    /// Hugging Face checkpoints. With a number, pass the rows through [`unpermute_rows`].
    ///
    /// # Errors
    /// When the metadata lacks the number of heads, or it does not divide the tensor.
    pub fn interleaved_heads(&self, tensor: &TensorInfo) -> Result<Option<usize>> {
        let architecture = self.architecture()?;
        let heads = match tensor.name().split('.').nth(2) {
            _ if !ARCHITECTURES.contains(&(architecture, true)) => return Ok(None),
            Some("attn_q") => self.heads("attention.head_count")?,
            Some("attn_k") => self.kv_heads()?,
            _ => return Ok(None),
        };
        let rows = tensor.shape().first().copied().unwrap_or(0);
        if heads.checked_mul(2).is_some_and(|halves| rows.is_multiple_of(halves)) {
            return Ok(Some(heads));
        }
        Err(self.invalid(tensor.name(), format!("has {rows} rows, which {heads} heads cannot share in pairs")))
    }

    /// The values of a tensor as f32, rows in Hugging Face order.
    ///
    /// # Errors
    /// As [`tensor_values`](Self::tensor_values) and [`interleaved_heads`](Self::interleaved_heads).
    pub fn hub_values(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        let values = self.tensor_values(tensor.name())?;
        let row = tensor.shape().iter().skip(1).product();
        Ok(match self.interleaved_heads(tensor)? {
            Some(heads) => unpermute_rows(&values, heads, row),
            None => values,
        })
    }

    /// The blocks of a tensor as they are stored, rows in Hugging Face order.
    ///
    /// # Errors
    /// As [`tensor_bytes`](Self::tensor_bytes) and [`interleaved_heads`](Self::interleaved_heads).
    pub fn hub_bytes(&self, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        let bytes = self.tensor_bytes(tensor.name())?;
        Ok(match self.interleaved_heads(tensor)? {
            Some(heads) => unpermute_rows(bytes, heads, tensor.row_bytes()).into(),
            None => bytes.into(),
        })
    }

    /// Divisors of the `head_dim / 2` rotary frequencies, where the file has them: Llama 3's scaled rotary
    /// embedding is stored as numbers, not as a rule.
    ///
    /// # Errors
    /// When there are too many or too few, or one is not a positive number.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>> {
        if self.tensors().all(|tensor| tensor.name() != ROPE_FACTORS) {
            return Ok(None);
        }
        let factors = self.tensor_values(ROPE_FACTORS)?;
        let expected = self.head_dim()? / 2;
        if factors.len() == expected && factors.iter().all(|factor| *factor > 0.0) {
            return Ok(Some(factors));
        }
        Err(self.invalid(ROPE_FACTORS, format!("must hold {expected} positive divisors, found {}", factors.len())))
    }

    /// The architecture as the text of a hub `config.json`. [`rope_factors`](Self::rope_factors) are not part
    /// of it: that format has no field for them.
    ///
    /// # Errors
    /// When a field is missing, makes no sense, or asks for something that is not supported.
    pub fn hub_config(&self) -> Result<String> {
        self.refuse_extensions()?;
        let architecture = self.architecture()?;
        let has = |name: &str| self.tensors().any(|tensor| tensor.name() == name);
        let embedding = self.tensor("token_embd.weight")?;
        let mut config = Map::new();
        let mut set = |field: &str, value: serde_json::Value| config.insert(field.into(), value);
        set("model_type", architecture.into());
        set("vocab_size", embedding.shape().first().copied().into());
        set("hidden_size", self.size("embedding_length")?.into());
        set("intermediate_size", self.size("feed_forward_length")?.into());
        set("num_hidden_layers", self.size("block_count")?.into());
        set("num_attention_heads", self.heads("attention.head_count")?.into());
        set("num_key_value_heads", self.kv_heads()?.into());
        set("head_dim", self.head_dim()?.into());
        set("max_position_embeddings", self.size("context_length")?.into());
        set("rms_norm_eps", self.own_number("attention.layer_norm_rms_epsilon")?.into());
        set("rope_theta", self.number(&self.key("rope.freq_base")?)?.unwrap_or(10_000.0).into());
        set("hidden_act", "silu".into());
        set("tie_word_embeddings", (!has("output.weight")).into());
        // Qwen2 has these biases without saying so.
        if architecture != "qwen2" {
            set("attention_bias", has("blk.0.attn_q.bias").into());
        }
        if has("blk.0.ffn_down.bias") {
            set("mlp_bias", true.into());
        }
        if let Some(window) = self.integer(&self.key("attention.sliding_window")?)?.filter(|window| *window > 0) {
            set("sliding_window", window.into());
        }
        if let Some(factor) = self.linear_rope_factor()? {
            set("rope_scaling", json!({ "rope_type": "linear", "factor": factor }));
        }
        if let Some(id) = self.integer("tokenizer.ggml.bos_token_id")? {
            set("bos_token_id", id.into());
        }
        let mut ends = Vec::new();
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
            ends.extend(self.integer(key)?.filter(|id| !ends.contains(id)));
        }
        set("eos_token_id", ends.into());
        Ok(serde_json::Value::Object(config).to_string())
    }

    // --- fields ---

    pub(super) fn unsupported(&self, field: &str, value: impl ToString, supported: &str) -> Error {
        let (path, field) = (self.path.clone(), field.into());
        Error::Unsupported { path, field, value: value.to_string(), supported: supported.into() }
    }

    /// `field` behind the architecture's prefix.
    fn key(&self, field: &str) -> Result<String> {
        Ok(format!("{}.{field}", self.architecture()?))
    }

    fn size(&self, field: &str) -> Result<usize> {
        let key = self.key(field)?;
        let value = self.integer(&key)?.ok_or_else(|| self.invalid(&key, "is missing".into()))?;
        usize::try_from(value).ok().filter(|size| *size > 0).ok_or_else(|| self.invalid(&key, format!("= {value}")))
    }

    fn own_number(&self, field: &str) -> Result<f64> {
        let key = self.key(field)?;
        self.number(&key)?.ok_or_else(|| self.invalid(&key, "is missing".into()))
    }

    /// A number of heads; files with one number per layer must repeat the same one.
    fn heads(&self, field: &str) -> Result<usize> {
        let key = self.key(field)?;
        let Some(Value::Array(layers)) = self.metadata(&key)? else { return self.size(field) };
        let count = |value| match value {
            Value::Unsigned(count) => usize::try_from(count).ok(),
            Value::Signed(count) => usize::try_from(count).ok(),
            _ => None,
        };
        match layers.iter().next().and_then(count) {
            Some(first) if first > 0 && layers.iter().all(|layer| count(layer) == Some(first)) => Ok(first),
            _ => Err(self.unsupported(&key, "a number per layer", "the same number of heads in every layer")),
        }
    }

    fn kv_heads(&self) -> Result<usize> {
        match self.metadata(&self.key("attention.head_count_kv")?)? {
            Some(_) => self.heads("attention.head_count_kv"),
            None => self.heads("attention.head_count"),
        }
    }

    fn head_dim(&self) -> Result<usize> {
        match self.metadata(&self.key("attention.key_length")?)? {
            Some(_) => self.size("attention.key_length"),
            None => Ok(self.size("embedding_length")? / self.heads("attention.head_count")?),
        }
    }

    /// The divisor of all rotary frequencies, where the file has one.
    fn linear_rope_factor(&self) -> Result<Option<f64>> {
        let (kind_key, old_key) = (self.key("rope.scaling.type")?, self.key("rope.scale_linear")?);
        let factor = match self.text(&kind_key)? {
            None => self.number(&old_key)?,
            Some("none") => None,
            Some("linear") => Some(self.own_number("rope.scaling.factor")?),
            Some(other) => {
                return Err(self.unsupported(&kind_key, other, "none, linear, or the tensor rope_freqs.weight"));
            }
        };
        Ok(factor.filter(|factor| *factor != 1.0))
    }

    /// Refuses fields that would change what the model computes.
    fn refuse_extensions(&self) -> Result<()> {
        let head_dim = self.head_dim()?;
        // Field, and the one value that changes nothing.
        let neutral = [
            ("attention.value_length", head_dim as f64),
            ("rope.dimension_count", head_dim as f64),
            ("expert_count", 0.0),
            ("attention.clamp_kqv", 0.0),
            ("attn_logit_softcapping", 0.0),
            ("final_logit_softcapping", 0.0),
            ("logit_scale", 1.0),
            ("residual_scale", 1.0),
            ("embedding_scale", 1.0),
        ];
        for (field, expected) in neutral {
            let key = self.key(field)?;
            if let Some(found) = self.number(&key)?.filter(|found| *found != expected) {
                return Err(self.unsupported(&key, found, &format!("{expected}, or no such field")));
            }
        }
        let causal = self.key("attention.causal")?;
        match self.flag(&causal)? {
            Some(false) => Err(self.unsupported(&causal, false, "true")),
            _ => Ok(()),
        }
    }
}

//! The architecture fields of a BERT model's `config.json`.

use crate::fields::Fields;
use crate::{Error, Result};
use std::path::Path;

/// Activation between the two linear layers of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// Exact GELU, by the error function.
    Gelu,
    /// GELU approximated by the hyperbolic tangent (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// Rectified linear unit.
    Relu,
}

/// Architecture of a BERT encoder; fields are named as in the hub's `config.json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct BertConfig {
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of the hidden states and of the embeddings.
    pub hidden_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two linear layers of a block.
    pub intermediate_size: usize,
    /// Activation between them.
    pub hidden_act: Activation,
    /// Longest sequence, in tokens, that has position embeddings.
    pub max_position_embeddings: usize,
    /// Rows of the token-type embedding.
    pub type_vocab_size: usize,
    /// Added to the variance in each layer norm.
    pub layer_norm_eps: f64,
}

impl BertConfig {
    /// Reads `config.json`.
    ///
    /// Fields that only concern training, generation or bookkeeping are passed over, as
    /// the reference implementation does.
    ///
    /// # Errors
    /// A missing or malformed field, and a field whose value changes the computation in a
    /// way that is not implemented; each error names the field.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::from_json(&text, path)
    }

    /// The same from text; `origin` is the file that errors name.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_json(json: &str, origin: &Path) -> Result<Self> {
        let fields = Fields::parse(json, origin)?;
        fields.require("model_type", &["bert"], "bert (BertModel)")?;
        fields.allow("position_embedding_type", &["absolute"], "absolute")?;
        fields.reject_true("is_decoder")?;
        fields.reject_true("add_cross_attention")?;
        for field in ["pruned_heads", "quantization_config", "auto_map"] {
            fields.reject_present(field)?;
        }

        let config = Self {
            vocab_size: fields.get("vocab_size")?,
            hidden_size: fields.get("hidden_size")?,
            num_hidden_layers: fields.get("num_hidden_layers")?,
            num_attention_heads: fields.get("num_attention_heads")?,
            intermediate_size: fields.get("intermediate_size")?,
            hidden_act: activation(&fields)?,
            max_position_embeddings: fields.get("max_position_embeddings")?,
            type_vocab_size: fields.get_or("type_vocab_size", 2)?,
            layer_norm_eps: fields.get_or("layer_norm_eps", 1e-12)?,
        };
        config.check(&fields)?;
        Ok(config)
    }

    fn check(&self, fields: &Fields<'_>) -> Result<()> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if value == 0 {
                return Err(fields.malformed(format!("`{field}` is 0")));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(fields.malformed(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            )));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return Err(fields.malformed(format!("`layer_norm_eps` is {}", self.layer_norm_eps)));
        }
        let embedding: usize = fields.get_or("embedding_size", self.hidden_size)?;
        if embedding != self.hidden_size {
            return Err(fields.unsupported("embedding_size", "the same as `hidden_size`"));
        }
        Ok(())
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

fn activation(fields: &Fields<'_>) -> Result<Activation> {
    match fields.get_or("hidden_act", "gelu".to_owned())?.as_str() {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        _ => Err(fields.unsupported("hidden_act", "gelu, gelu_new, gelu_pytorch_tanh, relu")),
    }
}

//! What a `tokenizer.json` from elsewhere must not ask for.
//!
//! The library trusts its files: a few settings, none of which a LLaMA-family model has, make it panic, and an
//! added token may silently get another id than the file says.

use serde::Deserialize;
use serde_json::Value;

/// The parts of a `tokenizer.json` that are checked.
#[derive(Deserialize)]
pub(super) struct Declared {
    #[serde(default)]
    added_tokens: Vec<AddedId>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedId {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
}

impl Declared {
    /// A setting that must not reach the library.
    pub(super) fn unsupported(&self) -> Option<&'static str> {
        let prefix = self.model.continuing_subword_prefix.as_deref().unwrap_or("");
        if !prefix.is_empty() && self.model.kind.as_deref().is_none_or(|kind| kind == "BPE") {
            return Some("BPE with `continuing_subword_prefix` is not supported");
        }
        if any(&self.normalizer, &|step| step["type"] == "Precompiled") {
            return Some("the normalizer `Precompiled` is not supported");
        }
        if any(&self.decoder, &|step| step["type"] == "Strip" && step["stop"] != 0) {
            return Some("the decoder `Strip` is supported with `stop` = 0 only");
        }
        None
    }

    /// An added token that has another id in `tokenizer` than in the file.
    pub(super) fn misplaced(&self, tokenizer: &tokenizers::Tokenizer) -> Option<String> {
        let placed = |token: &&AddedId| tokenizer.token_to_id(&token.content) == Some(token.id);
        let AddedId { id, content } = self.added_tokens.iter().find(|token| !placed(token))?;
        Some(format!("added token {content:?} should have id {id}, but gets {:?}", tokenizer.token_to_id(content)))
    }
}

/// Whether `test` holds for a step or for one of the steps inside it.
fn any(step: &Value, test: &impl Fn(&Value) -> bool) -> bool {
    test(step)
        || match step {
            Value::Array(inner) => inner.iter().any(|step| any(step, test)),
            Value::Object(inner) => inner.values().any(|step| any(step, test)),
            _ => false,
        }
}

//! What makes a vector of a text: architecture, pooling, normalisation, lengths, prefixes.

use crate::fields::Fields;
use crate::{BertConfig, Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// How the hidden states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pooling {
    /// Mean over all tokens (MiniLM, Contriever, e5).
    Mean,
    /// The first token's state (bge).
    Cls,
}

/// Everything that decides an embedding besides weights and tokenizer.
///
/// [`from_dir`](Self::from_dir) reads it from a model directory. Change fields before
/// handing it to [`Embedder::load_with`](crate::Embedder::load_with) to override:
///
/// ```no_run
/// use lloco_retrieval::{Embedder, EmbedderConfig, burn::tensor::Device};
///
/// # fn main() -> lloco_retrieval::Result<()> {
/// let mut config = EmbedderConfig::from_dir("models/e5-small-v2")?;
/// config.normalize = true;
/// config.query_prefix = "query: ".into();
/// config.passage_prefix = "passage: ".into();
/// let embedder = Embedder::load_with("models/e5-small-v2", config, &Device::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct EmbedderConfig {
    /// Architecture of the encoder.
    pub bert: BertConfig,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
    /// Tokens of a text that are read, special tokens included; the rest is cut off.
    pub max_seq_length: usize,
    /// Put before every query.
    pub query_prefix: String,
    /// Put before every passage.
    pub passage_prefix: String,
}

impl EmbedderConfig {
    /// Reads `config.json` and, where present, the sentence-transformers files
    /// `modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json` and
    /// `config_sentence_transformers.json` (prompts).
    ///
    /// A directory without `modules.json`, such as Contriever's, means: mean pooling, no
    /// normalisation, as many tokens as there are position embeddings.
    ///
    /// # Errors
    /// Missing or malformed files, and settings that are not implemented, named.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(Error::MissingFile {
                directory: dir.to_owned(),
                file: "config.json",
                advice: "give the directory that a BERT-family model was downloaded to",
            });
        }
        let bert = BertConfig::from_file(path)?;
        let mut config = Self {
            pooling: Pooling::Mean,
            normalize: false,
            max_seq_length: bert.max_position_embeddings,
            query_prefix: String::new(),
            passage_prefix: String::new(),
            bert,
        };
        config.read_modules(dir)?;
        config.read_max_seq_length(dir)?;
        config.read_prompts(dir)?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let positions = self.bert.max_position_embeddings;
        if !(3..=positions).contains(&self.max_seq_length) {
            return Err(Error::InvalidConfig {
                field: "max_seq_length",
                found: self.max_seq_length.to_string(),
                expected: format!("3 to {positions}, the model's `max_position_embeddings`"),
            });
        }
        Ok(())
    }

    fn read_modules(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("modules.json");
        if !path.is_file() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let modules: Vec<Module> = serde_json::from_str(&text).map_err(|e| Error::malformed(&path, e))?;
        for (place, module) in modules.iter().enumerate() {
            let kind = module.kind.rsplit('.').next().unwrap_or_default();
            match (place, kind) {
                (0, "Transformer") if module.path.is_empty() => {}
                (1, "Pooling") => self.read_pooling(&dir.join(module.folder(&path)?))?,
                (2.., "Normalize") => self.normalize = true,
                _ => {
                    return Err(Error::Unsupported {
                        path,
                        field: format!("module {place}"),
                        found: format!("{} at `{}`", module.kind, module.path),
                        supported: "Transformer in the directory itself, Pooling, Normalize",
                    });
                }
            }
        }
        Ok(())
    }

    fn read_pooling(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("config.json");
        let fields = Fields::read(&path)?;
        let modes: Vec<_> = fields.enabled().into_iter().filter(|name| name.starts_with("pooling_mode_")).collect();
        self.pooling = match modes.as_slice() {
            ["pooling_mode_mean_tokens"] => Pooling::Mean,
            ["pooling_mode_cls_token"] => Pooling::Cls,
            other => {
                return Err(Error::Unsupported {
                    path: path.clone(),
                    field: "pooling mode".into(),
                    found: format!("{other:?}"),
                    supported: "pooling_mode_mean_tokens or pooling_mode_cls_token, one of them",
                });
            }
        };
        if !fields.get_or("include_prompt", true)? {
            return Err(fields.unsupported("include_prompt", "true"));
        }
        Ok(())
    }

    fn read_max_seq_length(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("sentence_bert_config.json");
        if path.is_file() {
            let fields = Fields::read(&path)?;
            fields.reject_true("do_lower_case")?;
            let length = fields.get_or("max_seq_length", self.max_seq_length)?;
            self.max_seq_length = length.min(self.bert.max_position_embeddings);
        }
        Ok(())
    }

    fn read_prompts(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("config_sentence_transformers.json");
        if path.is_file() {
            let fields = Fields::read(&path)?;
            let prompts: BTreeMap<String, Option<String>> = fields.get_or("prompts", BTreeMap::new())?;
            let default: Option<String> = fields.optional("default_prompt_name")?;
            let prompt = |names: &[&str]| {
                let names = names.iter().copied().chain(default.as_deref());
                let mut found = names.filter_map(|name| prompts.get(name).cloned().flatten());
                found.next().unwrap_or_default()
            };
            self.query_prefix = prompt(&["query"]);
            self.passage_prefix = prompt(&["passage", "document"]);
        }
        Ok(())
    }
}

/// A line of sentence-transformers' `modules.json`.
#[derive(serde::Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Module {
    /// The module's folder, which must lie in the model's directory.
    fn folder(&self, origin: &Path) -> Result<&Path> {
        let folder = Path::new(&self.path);
        let mut components = folder.components();
        match (components.next(), components.next()) {
            (Some(Component::Normal(_)), None) => Ok(folder),
            _ => Err(Error::malformed(origin, format!("`path` {:?} is not a folder's name", self.path))),
        }
    }
}

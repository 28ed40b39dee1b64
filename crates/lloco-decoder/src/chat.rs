//! Chat templates: from messages to the text that a model was trained on.
//!
//! A template is a Jinja program that comes with the checkpoint. It is run without access to anything but the
//! messages, with a bounded number of steps.

mod python;

use std::{
    fs,
    path::{Path, PathBuf},
};

use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, gguf::Gguf};

/// Steps that a template may take: a long conversation needs some thousands.
const MAX_STEPS: u64 = 1_000_000;
/// A name for error messages.
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// What the model should know or do.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// A parsed chat template.
///
/// ```
/// # use lloco_decoder::{ChatTemplate, Message};
/// let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}\
///     {% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let template = ChatTemplate::new(source, "<s>", "</s>")?;
/// assert_eq!(template.render(&[Message::user("Hello")], true)?, "<|user|>Hello</s><|assistant|>");
/// # Ok::<_, lloco_decoder::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Parses a template. `bos_token` and `eos_token` are the tokens that open and close a text, which many
    /// templates write; leave empty what the model does not have.
    ///
    /// # Errors
    /// When the template is not valid Jinja.
    pub fn new(source: impl Into<String>, bos_token: impl Into<String>, eos_token: impl Into<String>) -> Result<Self> {
        let mut environment = Environment::new();
        // The settings under which templates are written.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_unknown_method_callback(python::method);
        environment.add_filter("tojson", python::tojson);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source.into()).map_err(template_error)?;
        Ok(Self { environment, bos_token: bos_token.into(), eos_token: eos_token.into() })
    }

    /// The template of a checkpoint directory: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`, where a list of templates means the one named `default`.
    ///
    /// # Errors
    /// When a file cannot be read or parsed.
    pub fn from_directory(directory: impl AsRef<Path>) -> Result<Option<Self>> {
        let directory = directory.as_ref();
        let config_path = directory.join("tokenizer_config.json");
        let config: TokenizerConfig = match read(&config_path)? {
            Some(json) => serde_json::from_str(&json)
                .map_err(|e| Error::Malformed { path: config_path, detail: e.to_string() })?,
            None => TokenizerConfig::default(),
        };
        let source = match (read(&directory.join("chat_template.jinja"))?, config.chat_template) {
            (Some(source), _) | (None, Some(Templates::One(source))) => Some(source),
            (None, Some(Templates::Named(all))) => {
                all.into_iter().find(|named| named.name == "default").map(|named| named.template)
            }
            (None, None) => None,
        };
        let token = |token: Option<Token>| token.map(Token::content).unwrap_or_default();
        source.map(|source| Self::new(source, token(config.bos_token), token(config.eos_token))).transpose()
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the model's answer begins.
    ///
    /// The text contains the control tokens it needs; encode it as it stands.
    ///
    /// # Errors
    /// When the template refuses the messages (roles out of order, for instance), uses something unknown, or
    /// does not come to an end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        let text = template.render(context! {
            messages,
            add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            tools => (),
            documents => (),
        });
        text.map_err(template_error)
    }
}

/// Where a tokenizer's chat template is to be found.
#[derive(Debug, Clone)]
pub(crate) enum ChatSource {
    /// In the files of this directory.
    Directory(PathBuf),
    /// Already read.
    Text { source: String, bos_token: String, eos_token: String },
    /// There is none.
    None,
}

impl ChatSource {
    /// The template of a GGUF file's metadata.
    pub(crate) fn of(file: &Gguf) -> Result<Self> {
        let Some(source) = file.text("tokenizer.chat_template")? else { return Ok(Self::None) };
        let token = |key: &str| file.named_token(key).map(|token| token.unwrap_or_default().to_owned());
        Ok(Self::Text {
            source: source.to_owned(),
            bos_token: token("tokenizer.ggml.bos_token_id")?,
            eos_token: token("tokenizer.ggml.eos_token_id")?,
        })
    }

    pub(crate) fn template(&self) -> Result<Option<ChatTemplate>> {
        match self {
            Self::Directory(directory) => ChatTemplate::from_directory(directory),
            Self::Text { source, bos_token, eos_token } => ChatTemplate::new(source, bos_token, eos_token).map(Some),
            Self::None => Ok(None),
        }
    }
}

/// The fields of `tokenizer_config.json` that a chat needs.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl Token {
    fn content(self) -> String {
        match self {
            Self::Text(content) | Self::Added { content } => content,
        }
    }
}

/// The text of a file, if it exists.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.into(), source }),
    }
}

/// The error with its causes in one line.
fn template_error(error: minijinja::Error) -> Error {
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    Error::Template { detail }
}

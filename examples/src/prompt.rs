//! Arguments that say what a model reads as text.

use std::path::PathBuf;

use clap::Args;
use lloco_core::{Checkpoint, Message, Tokenizer};

use crate::{Result, tokens};

/// A prompt, as text or token ids, and a text before it.
#[derive(Debug, Clone, Args)]
pub struct PromptArgs {
    /// The prompt
    #[arg(long, value_name = "TEXT", required_unless_present = "token_ids", conflicts_with = "token_ids")]
    prompt: Option<String>,

    /// Token ids instead of a prompt: a JSON file that holds an array
    #[arg(long, value_name = "FILE.json", conflicts_with = "chat")]
    token_ids: Option<PathBuf>,

    /// A text that stands before the prompt
    #[arg(long, value_name = "FILE.txt")]
    context: Option<PathBuf>,

    /// Put context and prompt into the model's chat form
    #[arg(long)]
    chat: bool,
}

impl PromptArgs {
    /// The checkpoint's tokenizer; none if there is none and token ids alone are read.
    ///
    /// # Errors
    /// When there is none, or it is damaged, and text must be read.
    pub fn tokenizer(&self, checkpoint: &Checkpoint) -> Result<Option<Tokenizer>> {
        match (checkpoint.tokenizer(), &self.token_ids, &self.context) {
            (Ok(tokenizer), ..) => Ok(Some(tokenizer)),
            (Err(error), Some(_), None) => {
                tracing::info!("the answer is ids alone: {error}");
                Ok(None)
            }
            (Err(error), ..) => Err(error.into()),
        }
    }

    /// Token ids of context and prompt; nothing is added to them.
    ///
    /// # Errors
    /// When a file cannot be read, or the tokenizer cannot read a text.
    pub fn ids(&self, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
        let tokenizer = || tokenizer.ok_or("a text needs the model's tokenizer");
        let context = self.context.as_deref().map(tokens::read_text).transpose()?;
        let prompt = self.prompt.as_deref().unwrap_or_default();
        if self.chat {
            let template = tokenizer()?.chat_template()?.ok_or("the model has no chat template: leave out --chat")?;
            let content = context.into_iter().chain([prompt.to_owned()]).collect::<Vec<_>>().join("\n\n");
            return Ok(tokenizer()?.encode(&template.render(&[Message::user(content)], true)?)?);
        }
        let mut ids = match context {
            Some(context) => tokenizer()?.encode(&context)?,
            None => Vec::new(),
        };
        match &self.token_ids {
            Some(path) => ids.extend(tokens::read_ids(path)?),
            None => ids.extend(tokenizer()?.encode(prompt)?),
        }
        Ok(ids)
    }
}

//! The words around a question.

use lloco_decoder::{ChatTemplate, DecoderConfig, Message, Result, Tokenizer};
use lloco_encoder::training::Wording;

/// Instruction that follows a document, whether it is read as text or as summary vectors.
const INSTRUCTION: &str = "Answer the question about the document above in a few words.";

/// What leads the model into writing a question about a passage and its answer: two that somebody else wrote. Small models
/// follow examples where they do not follow an instruction.
const STUDY: &str = "Text: The miller had three sons. When he died, the eldest was given the mill, the second the donkey, and \
    the youngest nothing but the cat.\nQuestion: What was the youngest son given?\nAnswer: the cat\n\n\
    Text: The committee met on Tuesday and approved the budget of 4,000 euros. Mrs Larsen voted against it because the roof \
    had not been repaired.\nQuestion: Why did Mrs Larsen vote against the budget?\nAnswer: because the roof had not been \
    repaired\n\nText: ";

/// Turns questions into token ids, in the model's own chat form if it has one: the same words in training and in use.
#[derive(Debug)]
pub struct Prompts {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    end: Option<u32>,
}

impl Prompts {
    /// The wording for a model and its tokenizer.
    ///
    /// # Errors
    /// When the chat template cannot be read.
    pub fn new(tokenizer: Tokenizer, model: &DecoderConfig) -> Result<Self> {
        let template = tokenizer.chat_template()?;
        Ok(Self { tokenizer, template, end: model.eos_token_ids.first().copied() })
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The prompt that follows summary vectors.
    pub(crate) fn question(&self, question: &str) -> Result<Vec<u32>> {
        self.render(&format!("{INSTRUCTION}\n\nQuestion: {}", question.trim()))
    }

    /// The prompt with a document's text in it.
    pub(crate) fn with_text(&self, text: &str, question: &str) -> Result<Vec<u32>> {
        self.render(&format!("{text}\n\n{INSTRUCTION}\n\nQuestion: {}", question.trim()))
    }

    /// An answer to learn, with the token that ends it.
    pub(crate) fn answer(&self, answer: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(answer.trim())?;
        ids.extend(self.end);
        Ok(ids)
    }

    /// The prompt behind which the model writes a question about a passage.
    pub(crate) fn study(&self, passage: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(&format!("{STUDY}{}\nQuestion:", passage.trim()))
    }

    /// The prompt behind which it answers that question.
    pub(crate) fn study_answer(&self, passage: &str, question: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(&format!("{STUDY}{}\nQuestion: {question}\nAnswer:", passage.trim()))
    }

    /// What the model said, as text.
    pub(crate) fn said(&self, tokens: &[u32]) -> Result<String> {
        let mut stream = self.tokenizer.stream();
        let pieces = tokens.iter().map(|&token| stream.push(token));
        let text = pieces.collect::<Result<String>>()? + &stream.finish()?;
        Ok(text.trim().to_owned())
    }

    fn render(&self, content: &str) -> Result<Vec<u32>> {
        let text = match &self.template {
            Some(template) => template.render(&[Message::user(content)], true)?,
            None => format!("{content}\nAnswer: "),
        };
        self.tokenizer.encode(&text)
    }
}

impl Wording for Prompts {
    fn text(&self, text: &str) -> lloco_encoder::Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text)?)
    }

    fn question(&self, question: &str) -> lloco_encoder::Result<Vec<u32>> {
        Ok(self.question(question)?)
    }

    fn answer(&self, answer: &str) -> lloco_encoder::Result<Vec<u32>> {
        Ok(self.answer(answer)?)
    }
}

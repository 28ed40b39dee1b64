//! Text from ids that arrive one by one.

use super::Tokenizer;
use crate::Result;

/// What decoding puts in place of bytes that are not (yet) a character.
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;

/// Turns ids into text as they are generated; see [`Tokenizer::stream`].
///
/// A character may take several tokens, and a token's text may depend on the one before it. The stream holds
/// text back until it is final: the pieces and [`finish`](Self::finish) together are the text of all ids.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// A token of context, then the ids whose text is not final.
    ids: Vec<u32>,
    /// Bytes of the text of `ids` that were handed out.
    emitted: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), emitted: 0 }
    }

    /// Takes the next id; returns the text that became final, maybe none. An id without a token has no text: models
    /// round their vocabulary up, and may generate what the tokenizer never makes.
    ///
    /// # Errors
    /// When the ids cannot be decoded.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.tokenizer.token(id).is_none() {
            return Ok(String::new());
        }
        let alone = self.tokenizer.decode(&[id])?;
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        let complete = text.trim_end_matches(INCOMPLETE);
        let piece = unseen(complete, self.emitted);
        self.emitted = self.emitted.max(complete.len());
        let whole = complete.len() == text.len() && !alone.is_empty() && !alone.contains(INCOMPLETE);
        if whole && !self.is_byte(id) {
            (self.ids, self.emitted) = (vec![id], alone.len());
        }
        Ok(piece)
    }

    /// The text held back: characters that were never completed.
    ///
    /// # Errors
    /// When the ids cannot be decoded.
    pub fn finish(self) -> Result<String> {
        Ok(unseen(&self.tokenizer.decode(&self.ids)?, self.emitted))
    }

    /// Whether the token is one byte of a character, written `<0xE2>`.
    fn is_byte(&self, id: u32) -> bool {
        self.tokenizer
            .token(id)
            .is_some_and(|token| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>'))
    }
}

/// `text` from byte `emitted` on.
fn unseen(text: &str, emitted: usize) -> String {
    text.get(text.ceil_char_boundary(emitted)..).unwrap_or_default().to_owned()
}

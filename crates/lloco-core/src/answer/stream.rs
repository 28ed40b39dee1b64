//! An answer piece by piece.

use std::time::Instant;

use lloco_decoder::{Generation, TextStream};

use super::{Answer, Source};
use crate::Result;

/// An answer as it is generated: an iterator over pieces of text.
#[must_use]
pub struct AnswerStream<'a> {
    pub(super) generation: Generation<'a>,
    /// `None` once the last piece is out.
    pub(super) text: Option<TextStream<'a>>,
    pub(super) answer: Answer,
}

impl AnswerStream<'_> {
    /// The documents that the answer rests on, best first; known before the first piece.
    pub fn sources(&self) -> &[Source] {
        &self.answer.sources
    }

    /// Generates what is left and gives the whole answer.
    ///
    /// # Errors
    /// When the model fails.
    pub fn finish(mut self) -> Result<Answer> {
        self.by_ref().try_for_each(|piece| piece.map(drop))?;
        self.answer.text = self.answer.text.trim().to_owned();
        Ok(self.answer)
    }

    fn step(&mut self) -> Result<Option<String>> {
        let start = Instant::now();
        let mut piece = String::new();
        while piece.is_empty() {
            let Some(text) = &mut self.text else { break };
            match self.generation.next().transpose()? {
                Some(token) => {
                    self.answer.usage.new_tokens += 1;
                    piece = text.push(token)?;
                }
                None => {
                    piece = self.text.take().map_or_else(|| Ok(String::new()), TextStream::finish)?;
                    break;
                }
            }
        }
        self.answer.timings.decode += start.elapsed();
        self.answer.text += &piece;
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Iterator for AnswerStream<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

//! What comes of a question: the answer, its sources and its cost.

use std::{ops::Range, time::Duration};

/// A document that an answer rests on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Source {
    /// The document's id.
    pub document: String,
    /// Its title.
    pub title: String,
    /// Its group.
    pub group: String,
    /// How well its best passage fits the question. Scores of one answer compare, those of several do not: their scale
    /// depends on [`Search`](crate::Search).
    pub score: f32,
    /// Bytes of the document's text that the best passage covers.
    pub range: Range<usize>,
    /// The best passage.
    pub passage: String,
    /// The page on which the best passage begins, from 1, if the document has pages.
    pub page: Option<usize>,
}

/// What an answer cost in positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the documents behind the answer.
    pub document_tokens: u64,
    /// Positions that they took in the prompt: summary vectors, and tokens of what was read as text.
    pub context_positions: usize,
    /// Positions of the whole prompt, question included.
    pub prompt_positions: usize,
    /// Tokens generated.
    pub new_tokens: usize,
}

impl Usage {
    /// Document tokens for each position read.
    pub fn ratio(&self) -> f64 {
        self.document_tokens as f64 / self.context_positions.max(1) as f64
    }
}

/// How long an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Finding the documents.
    pub retrieve: Duration,
    /// Loading summaries and adapter.
    pub load: Duration,
    /// Reading the prompt.
    pub prefill: Duration,
    /// Generating the answer's tokens.
    pub decode: Duration,
}

impl Timings {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.retrieve + self.load + self.prefill + self.decode
    }
}

/// An answer and what it rests on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What the model said.
    pub text: String,
    /// The documents whose summaries (or text) it read, best first.
    pub sources: Vec<Source>,
    /// Version of the group's adapter that was applied, if it has one.
    pub adapter: Option<u32>,
    /// Positions read and written.
    pub usage: Usage,
    /// Time taken.
    pub timings: Timings,
}

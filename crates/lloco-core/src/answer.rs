//! Online: retrieve, load, decode.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use lloco_decoder::{GenerateConfig, Generation, LinearAdapter, NoAdapter, Prompt, TextStream};
use lloco_lora::Adapter;

use crate::{
    Error, Lloco, Result,
    reader::page_of,
    search::{Found, keep_within},
    store::Store,
};

/// How to ask.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AskOptions {
    /// Ask only documents of this group.
    pub group: Option<String>,
    /// Read the summaries of these documents, all of one group and in this order, instead of searching. `positions` does
    /// not bound them.
    pub documents: Vec<String>,
    /// Documents whose summaries the model reads, at most. All come from the best document's group.
    pub top_k: usize,
    /// Positions that the summaries of several documents may take together; by default what the model's window leaves
    /// beside question and answer. The best document is read whatever it takes.
    pub positions: Option<usize>,
    /// How the answer is generated.
    pub generation: GenerateConfig,
}

impl Default for AskOptions {
    fn default() -> Self {
        Self { group: None, documents: Vec::new(), top_k: 1, positions: None, generation: GenerateConfig::greedy(64) }
    }
}

impl AskOptions {
    /// Asks only documents of this group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Reads the summaries of these documents, in this order, instead of searching.
    #[must_use]
    pub fn documents<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> Self {
        self.documents = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the summaries of up to `k` documents.
    #[must_use]
    pub fn top_k(mut self, k: usize) -> Self {
        self.top_k = k;
        self
    }

    /// Reads summaries of at most so many positions, the best document's excepted.
    #[must_use]
    pub fn positions(mut self, positions: usize) -> Self {
        self.positions = Some(positions);
        self
    }

    /// Sets how the answer is generated.
    #[must_use]
    pub fn generation(mut self, generation: GenerateConfig) -> Self {
        self.generation = generation;
        self
    }
}

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
    /// Positions that they took in the prompt: summary vectors, or tokens when read as text.
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

impl Lloco {
    /// Answers a question from the stored summaries of the document that fits best.
    ///
    /// # Errors
    /// When there is nothing to ask, or a summary, an adapter or the model fails.
    pub fn ask(&self, question: &str) -> Result<Answer> {
        self.ask_with(question, &AskOptions::default())
    }

    /// [`ask`](Self::ask) with options.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::PromptTooLong`].
    pub fn ask_with(&self, question: &str, options: &AskOptions) -> Result<Answer> {
        self.ask_stream(question, options)?.finish()
    }

    /// Answers piece by piece; [`AnswerStream::finish`] gives the rest and the account.
    ///
    /// # Errors
    /// As [`ask_with`](Self::ask_with).
    pub fn ask_stream(&self, question: &str, options: &AskOptions) -> Result<AnswerStream<'_>> {
        let mut timings = Timings::default();
        let mut found = self.find(question, options, &mut timings)?;
        let start = Instant::now();
        let asked = self.prompts.question(question)?;
        let window = self.encoder.decoder().config().max_position_embeddings;
        let room = window.saturating_sub(asked.len() + options.generation.max_new_tokens);
        let budget = match options.documents.is_empty() {
            true => options.positions.map_or(room, |positions| positions.min(room)),
            // Whoever names documents wants them all, or to be told.
            false => usize::MAX,
        };
        keep_within(&mut found, budget, |document| {
            let tokens = document.summary.as_ref().map_or(0, |summary| summary.tokens);
            self.encoder.layout().summary_vectors(usize::try_from(tokens).unwrap_or(usize::MAX))
        });
        let mut prompt = Prompt::new();
        let mut usage = Usage::default();
        for Found { document, .. } in &found {
            let rows = self.rows(self.store.summary(&document.id, &self.info)?);
            usage.context_positions += rows.dims()[0];
            usage.document_tokens += document.summary.as_ref().map_or(0, |summary| summary.tokens);
            prompt = prompt.embeddings(rows);
        }
        let stored = match found.first() {
            Some(best) => self.store.adapter(&best.document.group)?,
            None => None,
        };
        let decoder = self.encoder.decoder();
        let adapter: Arc<dyn LinearAdapter> = match (&stored, self.encoder.reader()) {
            (Some(stored), _) => Arc::new(Adapter::load(&stored.path, decoder.config(), decoder.device())?),
            (None, Some(reader)) => reader.clone(),
            (None, None) => Arc::new(NoAdapter),
        };
        let prompt = prompt.text(&asked);
        let sources = self.sources(&found)?;
        timings.load = start.elapsed();
        let version = stored.map(|stored| stored.version);
        self.stream(prompt, adapter, options, Answer { text: String::new(), sources, adapter: version, usage, timings })
    }

    /// Answers by reading the best document's text itself, without summaries or adapter: what LLoCO is measured
    /// against. A text beyond the model's window is cut there.
    ///
    /// # Errors
    /// As [`ask_with`](Self::ask_with).
    pub fn ask_text(&self, question: &str, options: &AskOptions) -> Result<AnswerStream<'_>> {
        let mut timings = Timings::default();
        let found = self.find(question, options, &mut timings)?;
        let start = Instant::now();
        let window = self.encoder.decoder().config().max_position_embeddings;
        let overhead = self.prompts.with_text("", question)?.len() + options.generation.max_new_tokens;
        let room = window.checked_sub(overhead).ok_or(Error::PromptTooLong { positions: overhead, window })?;
        let mut usage = Usage::default();
        let texts = found.iter().map(|hit| self.store.text(&hit.document.text)).collect::<Result<Vec<_>>>()?;
        let text = texts.join("\n\n");
        let (ids, offsets) = self.prompts.tokenizer().encode_with_offsets(&text)?;
        usage.document_tokens = ids.len() as u64;
        // The text's tokens may join differently with the words around it: leave a little room.
        let kept = ids.len().min(room.saturating_sub(8));
        let end = offsets.get(kept).map_or(text.len(), |range| range.start);
        usage.context_positions = kept;
        let prompt = self.prompts.with_text(text.get(..end).unwrap_or(&text), question)?;
        let sources = self.sources(&found)?;
        timings.load = start.elapsed();
        let answer = Answer { text: String::new(), sources, adapter: None, usage, timings };
        self.stream(Prompt::new().text(&prompt), Arc::new(NoAdapter), options, answer)
    }

    fn find(&self, question: &str, options: &AskOptions, timings: &mut Timings) -> Result<Vec<Found>> {
        let start = Instant::now();
        let k = options.top_k.max(1);
        if self.search().is_stale(&self.store)? {
            self.search_mut().update(&self.store, &self.embedder, &self.observer)?;
        }
        let found = match options.documents.is_empty() {
            true => self.search().find(&self.store, &self.embedder, question, options.group.as_deref(), k)?,
            false => self.named(question, &options.documents)?,
        };
        timings.retrieve = start.elapsed();
        Ok(found)
    }

    /// Documents by name, each with its best passage where a search finds one.
    fn named(&self, question: &str, ids: &[String]) -> Result<Vec<Found>> {
        let mut found: Vec<Found> = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(document) = self.store.document(id)? else {
                return Err(Error::DocumentNotFound { id: id.clone() });
            };
            if found.first().is_some_and(|first| first.document.group != document.group) {
                let reason = "it is in another group than the first, and one adapter answers";
                return Err(Error::InvalidName { kind: "document id", name: id.clone(), reason });
            }
            found.push(Found { document, score: 0.0, passage: 0 });
        }
        let texts = found.iter().map(|found| found.document.text);
        let best = self.search().best_passages(&self.embedder, question, texts)?;
        for own in &mut found {
            if let Some(&(score, passage)) = best.get(&own.document.text) {
                (own.score, own.passage) = (score, passage);
            }
        }
        Ok(found)
    }

    fn sources(&self, found: &[Found]) -> Result<Vec<Source>> {
        let source = |Found { document, score, passage }: &Found| {
            let text = self.store.text(&document.text)?;
            let range = self.search().passage(&self.embedder, &document.text, &text, *passage)?;
            Ok(Source {
                document: document.id.clone(),
                title: document.title.clone(),
                group: document.group.clone(),
                score: *score,
                passage: text.get(range.clone()).unwrap_or_default().to_owned(),
                page: page_of(&text, range.start),
                range,
            })
        };
        found.iter().map(source).collect()
    }

    fn stream(
        &self,
        prompt: Prompt,
        adapter: Arc<dyn LinearAdapter>,
        options: &AskOptions,
        mut answer: Answer,
    ) -> Result<AnswerStream<'_>> {
        let decoder = self.encoder.decoder();
        let (positions, window) =
            (prompt.positions() + options.generation.max_new_tokens, decoder.config().max_position_embeddings);
        if positions > window {
            return Err(Error::PromptTooLong { positions, window });
        }
        answer.usage.prompt_positions = prompt.positions();
        let generation = decoder.generate(&prompt, &options.generation, adapter)?;
        answer.timings.prefill = generation.prefill_time();
        Ok(AnswerStream { generation, text: Some(self.prompts.tokenizer().stream()), answer })
    }
}

/// An answer as it is generated: an iterator over pieces of text.
#[must_use]
pub struct AnswerStream<'a> {
    generation: Generation<'a>,
    /// `None` once the last piece is out.
    text: Option<TextStream<'a>>,
    answer: Answer,
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

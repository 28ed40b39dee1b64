//! Online: retrieve, load, decode.

mod options;
mod report;
mod stream;

pub use options::AskOptions;
pub use report::{Answer, Source, Timings, Usage};
pub use stream::AnswerStream;

use std::{sync::Arc, time::Instant};

use lloco_decoder::{LinearAdapter, NoAdapter, Prompt};
use lloco_lora::Adapter;

use crate::{
    Error, Lloco, Result,
    reader::page_of,
    search::{Found, keep_within},
    store::Store,
};

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
        let mut sources = self.sources(&found)?;
        let mut asked = self.behind_summaries(question, options, &sources)?;
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
        let mut usage = Usage::default();
        sources.retain(|source| found.iter().any(|found| found.document.id == source.document));
        if options.passages {
            asked = self.behind_summaries(question, options, &sources)?;
            usage.context_positions = asked.len().saturating_sub(self.prompts.question(question)?.len());
        }
        let mut prompt = Prompt::new();
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
        timings.load = start.elapsed();
        let version = stored.map(|stored| stored.version);
        self.stream(prompt, adapter, options, Answer { text: String::new(), sources, adapter: version, usage, timings })
    }

    /// What stands behind the summaries: the question, and before it the documents' best passages if they are wanted.
    fn behind_summaries(&self, question: &str, options: &AskOptions, sources: &[Source]) -> Result<Vec<u32>> {
        if !options.passages || sources.is_empty() {
            return Ok(self.prompts.question(question)?);
        }
        let passages: Vec<&str> = sources.iter().map(|source| source.passage.trim()).collect();
        Ok(self.prompts.with_text(&passages.join("\n\n"), question)?)
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

//! Self-study: questions about a group's documents that nobody had to write.

mod file;
mod items;
mod written;

use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use lloco_decoder::{NoAdapter, Sampling, mix};
use lloco_retrieval::{PassageConfig, PassageSplitter};
use serde::Serialize;

use self::{
    file::Draft,
    items::{Item, cloze, continuations, counts, evenly},
    written::{answer, question, sound},
};
use crate::{
    Error, Event, Lloco, Result,
    dataset::{QaDocument, Question},
    digest::{Digest, Hasher},
    eval::words,
    reading::Reading,
    store::{Document, Store},
};

/// Tokens that the model may take to write a question and its answer.
const WRITTEN: usize = 96;
/// Tokens between them, at most.
const LABEL: usize = 16;
/// Of questions: lower is duller, higher is wronger.
const TEMPERATURE: f32 = 0.5;

/// Which questions to make of each passage of a group's documents.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SelfStudyConfig {
    /// Questions that the model writes and answers itself, tried; those that the passage does not answer are dropped.
    pub written: usize,
    /// Sentences with a number, a name or a rare word missing, at most.
    pub cloze: usize,
    /// Questions for the words behind a sentence, at most.
    pub continuations: usize,
    /// Tokens of a passage, at most, as the embedder counts them; no more than it reads.
    pub passage_tokens: usize,
    /// Passages of each document, evenly spread; by default all.
    pub passages: Option<usize>,
    /// Seeds what the model writes.
    pub seed: u64,
}

impl Default for SelfStudyConfig {
    fn default() -> Self {
        Self { written: 2, cloze: 2, continuations: 1, passage_tokens: 200, passages: None, seed: 0 }
    }
}

impl SelfStudyConfig {
    /// Sets how many questions of each kind are made of a passage: written by the model, cloze, continuations.
    #[must_use]
    pub fn with_items(mut self, written: usize, cloze: usize, continuations: usize) -> Self {
        (self.written, self.cloze, self.continuations) = (written, cloze, continuations);
        self
    }

    /// Takes only so many passages of each document.
    #[must_use]
    pub fn with_passages(mut self, passages: usize) -> Self {
        self.passages = Some(passages);
        self
    }

    /// Sets the longest passage, in tokens of the embedder.
    #[must_use]
    pub fn with_passage_tokens(mut self, tokens: usize) -> Self {
        self.passage_tokens = tokens;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// What self-study made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SelfStudied {
    /// Passages studied, those of an interrupted run before included.
    pub passages: usize,
    /// Questions that the model wrote.
    pub written: usize,
    /// Cloze questions.
    pub cloze: usize,
    /// Continuations.
    pub continuations: usize,
    /// What the model wrote in this run and was not believed.
    pub dropped: usize,
    /// Time spent.
    pub time: Duration,
}

impl Lloco {
    /// Makes questions and answers about a group's documents, for groups that nobody has asked about, and writes them to
    /// `out` as JSON Lines, one question a line, to be read, edited, and given to [`finetune`](Self::finetune).
    ///
    /// Cloze questions and continuations follow from the text; other questions the model writes itself, reading a passage.
    /// Each line names its passage, which is what [`FinetuneConfig::with_distillation`](crate::FinetuneConfig) lets the
    /// model read. The same settings and documents give the same lines. What an interrupted run made is in a draft beside
    /// `out`, and the next one goes on there.
    ///
    /// # Errors
    /// When `out` exists, the group has no documents or nothing can be asked about them, a setting is out of range, or
    /// the model, the store or writing fails; [`Error::Interrupted`] when the observer asks to stop.
    pub fn self_study(&self, group: &str, config: &SelfStudyConfig, out: impl AsRef<Path>) -> Result<SelfStudied> {
        let start = Instant::now();
        let documents = self.store.documents(Some(group))?;
        if documents.is_empty() {
            return Err(Error::NothingToAsk { group: Some(group.into()) });
        }
        let mut splitting = PassageConfig::default();
        (splitting.max_tokens, splitting.overlap) = (config.passage_tokens, 0);
        let splitter = PassageSplitter::new(&self.embedder, splitting)?;
        let mut draft = Draft::open(out.as_ref(), &self.study_name(config, &documents))?;
        let mut studied = SelfStudied::default();
        draft.kept.iter().for_each(|line| studied.count(line));
        let mut reading = Reading::new(self.encoder.decoder(), Arc::new(NoAdapter));
        let mut skipping = draft.from.is_some();
        let total = documents.iter().map(|document| document.text_bytes).sum();
        let mut before = 0;
        for document in documents {
            let text = self.store.text(&document.text)?;
            let counts = counts(&text);
            let passages: Vec<(usize, usize)> =
                splitter.split(&text)?.into_iter().map(|passage| (passage.range.start, passage.range.end)).collect();
            let mut asked: HashSet<String> = HashSet::new();
            let wanted = evenly(passages.len(), config.passages.unwrap_or(usize::MAX));
            for passage in wanted.filter_map(|at| passages.get(at).copied()) {
                studied.passages += 1;
                let here = Some((document.id.clone(), passage));
                if skipping && here != draft.from {
                    let known = draft.kept.iter().filter(|line| line.id == document.id);
                    asked.extend(known.flat_map(|line| &line.questions).map(|question| question.question.clone()));
                    continue;
                }
                skipping = false;
                let body = text.get(passage.0..passage.1).unwrap_or_default();
                let mut items: Vec<(&str, Item)> = Vec::new();
                items.extend(cloze(body, &counts, config.cloze).into_iter().map(|item| (CLOZE, item)));
                items.extend(continuations(body, config.continuations).into_iter().map(|item| (CONTINUATION, item)));
                let written = self.written(&mut reading, body, config, &mut studied.dropped)?;
                items.extend(written.into_iter().map(|item| (WRITTEN_KIND, item)));
                items.retain(|(_, item)| asked.insert(item.question.clone()));
                let lines: Vec<QaDocument> = items
                    .into_iter()
                    .enumerate()
                    .map(|(n, (kind, item))| line(&document, passage, n, kind, item))
                    .collect();
                draft.add(&lines)?;
                lines.iter().for_each(|line| studied.count(line));
                let done = before + passage.1 as u64;
                if let Err(stop) = self.observer.tell(&Event::Studied { document: &document.id, done, total }) {
                    draft.sync()?;
                    return Err(stop);
                }
            }
            before += document.text_bytes;
        }
        if studied.written + studied.cloze + studied.continuations == 0 {
            draft.discard()?;
            return Err(Error::NothingToStudy { group: group.into(), passages: studied.passages });
        }
        draft.publish()?;
        studied.time = start.elapsed();
        Ok(studied)
    }

    /// What the questions follow from, in a few digits.
    fn study_name(&self, config: &SelfStudyConfig, documents: &[Document]) -> String {
        let mut name = Hasher::labelled("lloco self-study 2");
        name.field(&serde_json::to_vec(config).unwrap_or_default());
        name.field(self.info.id().bytes());
        name.field(self.embedder.fingerprint().as_bytes());
        for document in documents {
            name.field(document.id.as_bytes());
            name.field(document.text.bytes());
        }
        name.finish().to_string().chars().take(8).collect()
    }

    /// Questions that the model writes about a passage; what is not believed is counted in `dropped`.
    fn written(
        &self,
        reading: &mut Reading<'_>,
        passage: &str,
        config: &SelfStudyConfig,
        dropped: &mut usize,
    ) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        if config.written == 0 {
            return Ok(items);
        }
        let ids = self.prompts.study(passage)?;
        let window = self.encoder.decoder().config().max_position_embeddings;
        let positions = ids.len() + WRITTEN + LABEL;
        if positions > window {
            return Err(Error::PromptTooLong { positions, window });
        }
        let known: HashSet<String> = words(passage).into_iter().collect();
        let salt = Digest::of(passage.as_bytes()).bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        for n in 0..config.written as u64 {
            let seed = mix(config.seed ^ mix(salt ^ n));
            reading.prompt(&[], &ids)?;
            let written = reading.sample(Sampling::temperature(TEMPERATURE, seed), WRITTEN / 2)?;
            let written = self.prompts.said(&written)?;
            let Some(question) = question(&written) else {
                *dropped += 1;
                continue;
            };
            // Nothing is left to chance in the answer.
            reading.prompt(&[], &self.prompts.study_answer(passage, question)?)?;
            let said = self.prompts.said(&reading.sample(Sampling::greedy(), WRITTEN / 2)?)?;
            let item = Item { question: question.to_owned(), answer: answer(&said).to_owned() };
            let twice = items.iter().any(|known: &Item| known.question == item.question);
            if sound(&item, &known) && !twice { items.push(item) } else { *dropped += 1 }
        }
        Ok(items)
    }
}

impl SelfStudied {
    fn count(&mut self, line: &QaDocument) {
        for question in &line.questions {
            match question.kind.as_str() {
                CLOZE => self.cloze += 1,
                CONTINUATION => self.continuations += 1,
                _ => self.written += 1,
            }
        }
    }
}

/// Values of the field `kind`.
const WRITTEN_KIND: &str = "written";
const CLOZE: &str = "cloze";
const CONTINUATION: &str = "continuation";

fn line(document: &Document, passage: (usize, usize), n: usize, kind: &str, item: Item) -> QaDocument {
    let Item { question, answer } = item;
    let mut question = Question::new(format!("{}@{}-{}", document.id, passage.0, n + 1), question, answer);
    (question.kind, question.passage) = (kind.to_owned(), Some(passage));
    QaDocument { id: document.id.clone(), title: String::new(), text: String::new(), questions: vec![question] }
}

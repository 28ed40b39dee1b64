//! Filling the control table: what stands before each question, and reading it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use burn::tensor::Tensor;
use lloco_decoder::{LinearAdapter, NoAdapter, Sampling};
use lloco_lora::Adapter;
use lloco_retrieval::{PassageConfig, PassageSplitter};
use serde::Serialize;

use super::{ControlRow, ControlTable, Error as EvalError, ScoredAnswer, Scores, SummaryShape, shape::embedding_norm};
use crate::{
    Digest, Error, Event, Lloco, Result,
    dataset::{self, QaDocument},
    members::Asked,
    random::SplitMix64,
    reading::Reading,
    store::{Document, Store},
};

/// Tokens of a passage that the row [`Context::Retrieved`] is made of.
const PASSAGE: usize = 64;

/// What stands before a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Context {
    /// Nothing: what the model, or the adapter, knows by itself.
    Nothing,
    /// Summary vectors of other documents: what is as good behind them is not memory.
    Shuffled,
    /// The documents' summary vectors.
    Compressed,
    /// The beginnings of the documents' texts, in as many positions as the summary vectors take.
    Truncated,
    /// The passages of the documents that fit the question best, in as many positions.
    Retrieved,
    /// The documents' texts, as far as the model's window reaches.
    FullText,
}

impl Context {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Nothing, Self::Shuffled, Self::Compressed, Self::Truncated, Self::Retrieved, Self::FullText];
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no context",
            Self::Shuffled => "shuffled summaries",
            Self::Compressed => "compressed",
            Self::Truncated => "truncated text",
            Self::Retrieved => "retrieved text",
            Self::FullText => "full text",
        })
    }
}

/// What to ask, and behind what.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EvaluateConfig {
    /// Questions and answers, in the format of [`dataset`].
    pub questions: PathBuf,
    /// Ask only so many of them, chosen at random.
    pub limit: Option<usize>,
    /// The rows of the table; each is read by the model as it comes, and by the group's adapter if there is one.
    pub contexts: Vec<Context>,
    /// Tokens of an answer, at most.
    pub max_new_tokens: usize,
    /// Seeds the choice of questions, of other documents, and the intervals.
    pub seed: u64,
}

impl EvaluateConfig {
    /// All rows for all questions of a JSONL file, with answers of up to 32 tokens.
    pub fn new(questions: impl Into<PathBuf>) -> Self {
        let (questions, contexts) = (questions.into(), Context::ALL.to_vec());
        Self { questions, limit: None, contexts, max_new_tokens: 32, seed: 0 }
    }

    /// Asks only so many questions, chosen at random.
    #[must_use]
    pub fn with_limit(mut self, questions: usize) -> Self {
        self.limit = Some(questions);
        self
    }

    /// Sets the rows.
    #[must_use]
    pub fn with_contexts(mut self, contexts: impl Into<Vec<Context>>) -> Self {
        self.contexts = contexts.into();
        self
    }

    /// Sets the longest answer, in tokens.
    #[must_use]
    pub fn with_max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = tokens;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    fn check(&self) -> Result<(), EvalError> {
        let counts = [
            ("limit", self.limit.unwrap_or(1)),
            ("contexts", self.contexts.len()),
            ("max_new_tokens", self.max_new_tokens),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((field, _)) => Err(EvalError::Setting { field, found: "0".into(), expected: "at least 1" }),
            None => Ok(()),
        }
    }
}

impl Lloco {
    /// Asks a group's documents questions with known answers, behind their summaries and behind what summaries have to
    /// be better than.
    ///
    /// Without adapter, summaries are read as [`ask`](Self::ask) reads those of a group that has none. Greedy, so the
    /// same store, data and settings give the same table.
    ///
    /// # Errors
    /// When the questions cannot be read or ask about none of the group's documents, a setting leaves nothing to do, or
    /// a summary, an adapter or the model fails; [`Error::Interrupted`] when the observer asks to stop.
    pub fn evaluate(&self, group: &str, config: &EvaluateConfig) -> Result<ControlTable> {
        self.evaluate_on(group, &dataset::read(&config.questions)?, config)
    }

    /// [`evaluate`](Self::evaluate) on questions that are in memory; `config.questions` only names them.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn evaluate_on(&self, group: &str, data: &[QaDocument], config: &EvaluateConfig) -> Result<ControlTable> {
        config.check()?;
        let asked = chosen(self.asked(group, data, &config.questions)?, config);
        let stored = self.store.adapter(group)?;
        let decoder = self.encoder.decoder();
        let adapter: Option<Arc<dyn LinearAdapter>> = match &stored {
            Some(stored) => Some(Arc::new(Adapter::load(&stored.path, decoder.config(), decoder.device())?)),
            None => None,
        };
        let documents: BTreeMap<&str, &Document> =
            asked.iter().flat_map(|asked| &asked.documents).map(|document| (document.id.as_str(), document)).collect();
        let summaries = documents.keys().map(|id| self.store.summary(id, &self.info)).collect::<Result<Vec<_>>>()?;
        let mut table = ControlTable {
            group: group.into(),
            adapter: stored.map(|stored| stored.version),
            questions: asked.len(),
            documents: documents.len(),
            seed: config.seed,
            rows: Vec::new(),
            summaries: SummaryShape::of(&summaries, embedding_norm(decoder)?),
        };
        let mut others = self.store.documents(None)?;
        others.retain(|document| document.summary.is_some());
        let mut desk = Desk { lloco: self, config, group, others, passages: HashMap::new() };
        let readers = 1 + usize::from(adapter.is_some());
        let (mut done, total) = (0, config.contexts.len() * readers * asked.len());
        for &context in &config.contexts {
            let enough = |asked: &Asked<'_>| desk.wrong(asked).len() == asked.documents.len();
            if context == Context::Shuffled && !asked.iter().all(enough) {
                tracing::warn!("too few other documents in the store: there is no row of shuffled summaries");
                done += readers * asked.len();
                continue;
            }
            let plain: Arc<dyn LinearAdapter> = match (context, self.encoder.reader()) {
                (Context::Shuffled | Context::Compressed, Some(reader)) => reader.clone(),
                _ => Arc::new(NoAdapter),
            };
            for (reader, adapted) in [Some(plain), adapter.clone()].into_iter().flatten().zip([false, true]) {
                let mut reading = Reading::new(decoder, reader);
                let (mut answers, mut positions) = (Vec::with_capacity(asked.len()), 0);
                for asked in &asked {
                    let Laid { summaries, ids, positions: own } = desk.lay(context, asked)?;
                    reading.prompt(&summaries, &ids)?;
                    answers.push(self.scored(&mut reading, asked, config.max_new_tokens)?);
                    positions += own;
                    done += 1;
                    self.observer.tell(&Event::Evaluated { done, total })?;
                }
                let positions = positions as f64 / asked.len() as f64;
                table.rows.push(ControlRow { context, adapter: adapted, positions, answers });
            }
        }
        Ok(table)
    }

    fn scored(&self, reading: &mut Reading<'_>, asked: &Asked<'_>, max_new_tokens: usize) -> Result<ScoredAnswer> {
        let references = &asked.question.answers;
        let first = self.prompts.answer(asked.answer())?;
        let losses = reading.losses(&first)?;
        let text = self.prompts.said(&reading.sample(Sampling::greedy(), max_new_tokens)?)?;
        Ok(ScoredAnswer {
            question: asked.question.id.clone(),
            scores: Scores::of(&text, references),
            text,
            nll: losses.iter().map(|&nll| f64::from(nll)).sum(),
            tokens: losses.len(),
        })
    }
}

/// The questions to ask: `limit` of them, in the order of the data set.
fn chosen<'d>(asked: Vec<Asked<'d>>, config: &EvaluateConfig) -> Vec<Asked<'d>> {
    let Some(limit) = config.limit.filter(|limit| *limit < asked.len()) else { return asked };
    let mut random = SplitMix64::new(config.seed);
    let mut left = asked.len();
    let mut wanted = limit;
    // Each set of `limit` questions is equally likely.
    let take = |_: &Asked<'_>| {
        let take = random.below(left) < wanted;
        left -= 1;
        wanted -= usize::from(take);
        take
    };
    asked.into_iter().filter(take).collect()
}

/// What the model reads for one question.
struct Laid {
    summaries: Vec<Tensor<2>>,
    ids: Vec<u32>,
    /// Positions of the context alone.
    positions: usize,
}

/// Lays out what stands before questions.
struct Desk<'a> {
    lloco: &'a Lloco,
    config: &'a EvaluateConfig,
    group: &'a str,
    /// The store's compressed documents, to take wrong summaries from.
    others: Vec<Document>,
    /// Passages and their vectors of the texts used so far.
    passages: HashMap<Digest, Vec<(String, Vec<f32>)>>,
}

impl Desk<'_> {
    fn lay(&mut self, context: Context, asked: &Asked<'_>) -> Result<Laid> {
        let documents: Vec<&Document> = asked.documents.iter().collect();
        let laid = match context {
            Context::Nothing => self.summaries(&[], asked)?,
            Context::Compressed => self.summaries(&documents, asked)?,
            Context::Shuffled => self.summaries(&self.wrong(asked), asked)?,
            Context::Truncated => self.text(asked, |desk, document, room| desk.lloco.head(document, room))?,
            Context::Retrieved => self.text(asked, |desk, document, room| desk.retrieved(document, asked, room))?,
            Context::FullText => {
                let answer = self.lloco.prompts.answer(asked.answer())?.len().max(self.config.max_new_tokens);
                let (text, positions) = self.lloco.text_in_window(asked, answer)?;
                let ids = self.lloco.prompts.with_text(&text, &asked.question.question)?;
                Laid { summaries: Vec::new(), ids, positions }
            }
        };
        let positions = laid.positions + laid.ids.len() + self.config.max_new_tokens;
        let window = self.lloco.encoder.decoder().config().max_position_embeddings;
        match positions > window && matches!(context, Context::Compressed | Context::Shuffled) {
            true => Err(Error::PromptTooLong { positions, window }),
            false => Ok(laid),
        }
    }

    fn summaries(&self, documents: &[&Document], asked: &Asked<'_>) -> Result<Laid> {
        let lloco = self.lloco;
        let rows = documents.iter().map(|document| Ok(lloco.rows(lloco.store.summary(&document.id, &lloco.info)?)));
        let summaries: Vec<Tensor<2>> = rows.collect::<Result<_>>()?;
        let positions = summaries.iter().map(|rows| rows.dims()[0]).sum();
        Ok(Laid { summaries, ids: lloco.prompts.question(&asked.question.question)?, positions })
    }

    /// As many other documents as the question has, the same ones each time: of the group, or else of other groups.
    fn wrong(&self, asked: &Asked<'_>) -> Vec<&Document> {
        let own = |other: &&Document| asked.documents.iter().any(|document| document.text == other.text);
        let digest = Digest::of(asked.question.id.as_bytes());
        let salt = digest.bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        let mut random = SplitMix64::new(self.config.seed ^ salt);
        let mut wrong = Vec::new();
        for inside in [true, false] {
            let others = self.others.iter().filter(|other| (other.group == self.group) == inside);
            let mut others: Vec<&Document> = others.filter(|other| !own(other)).collect();
            while wrong.len() < asked.documents.len() && !others.is_empty() {
                wrong.push(others.swap_remove(random.below(others.len())));
            }
        }
        wrong
    }

    /// A piece of each document's text before the question; `piece` gets the positions that the document's summary takes
    /// and says how many it took itself.
    fn text(
        &mut self,
        asked: &Asked<'_>,
        mut piece: impl FnMut(&mut Self, &Document, usize) -> Result<(String, usize)>,
    ) -> Result<Laid> {
        let (mut texts, mut positions) = (Vec::new(), 0);
        for document in &asked.documents {
            let tokens = document.summary.as_ref().map_or(0, |summary| summary.tokens);
            let room = self.lloco.encoder.layout().summary_vectors(usize::try_from(tokens).unwrap_or(usize::MAX));
            let (text, taken) = piece(self, document, room)?;
            positions += taken;
            texts.push(text);
        }
        let ids = self.lloco.prompts.with_text(&texts.join("\n\n"), &asked.question.question)?;
        Ok(Laid { summaries: Vec::new(), ids, positions })
    }

    /// The passages that fit the question best, in the order of the text; the last one is cut where the room ends.
    fn retrieved(&mut self, document: &Document, asked: &Asked<'_>, room: usize) -> Result<(String, usize)> {
        let embedder = &self.lloco.embedder;
        if !self.passages.contains_key(&document.text) {
            let text = self.lloco.store.text(&document.text)?;
            let mut config = PassageConfig::default();
            (config.max_tokens, config.overlap) = (PASSAGE, 0);
            let passages = PassageSplitter::new(embedder, config)?.split(&text)?;
            let passages: Vec<&str> = passages.into_iter().filter_map(|passage| text.get(passage.range)).collect();
            let vectors = embedder.embed_passages(&passages)?;
            let both = passages.into_iter().zip(vectors.rows());
            let both = both.map(|(passage, vector)| (passage.to_owned(), vector.to_vec())).collect();
            self.passages.insert(document.text, both);
        }
        let passages = self.passages.get(&document.text).map_or(&[][..], Vec::as_slice);
        let query = embedder.embed_query(&asked.question.question)?;
        let score = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
        let mut ranked: Vec<(usize, f32)> = passages.iter().map(|(_, vector)| score(vector)).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let (mut kept, mut taken) = (BTreeMap::new(), 0);
        for (place, _) in ranked {
            let Some((passage, _)) = passages.get(place).filter(|_| taken < room) else { break };
            let (text, tokens) = self.lloco.cut(passage.clone(), room - taken)?;
            taken += tokens;
            kept.insert(place, text);
        }
        Ok((kept.into_values().collect::<Vec<_>>().join("\n"), taken))
    }
}

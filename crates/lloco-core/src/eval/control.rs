//! Filling the control table: the rows, and reading each question's.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use lloco_decoder::{LinearAdapter, NoAdapter, Sampling};
use lloco_lora::Adapter;
use serde::Serialize;

use super::{
    ControlRow, ControlTable, Error as EvalError, ScoredAnswer, Scores, SummaryShape,
    desk::{Desk, Laid},
    shape::embedding_norm,
};
use crate::{
    Event, Lloco, Result,
    dataset::{self, QaDocument},
    members::Asked,
    random::SplitMix64,
    reading::Reading,
    store::{Document, Store},
};

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
    /// The documents' summary vectors, and behind them those passages.
    Both,
    /// The documents' texts, as far as the model's window reaches.
    FullText,
}

impl Context {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Nothing, Self::Shuffled, Self::Compressed, Self::Truncated, Self::Retrieved, Self::Both, Self::FullText];
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no context",
            Self::Shuffled => "shuffled summaries",
            Self::Compressed => "compressed",
            Self::Truncated => "truncated text",
            Self::Retrieved => "retrieved text",
            Self::Both => "compressed and retrieved text",
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
    /// a summary, an adapter or the model fails; [`Error::Interrupted`](crate::Error::Interrupted) when the observer asks to stop.
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
        let mut desk = Desk::new(self, config, group)?;
        let mut contexts = config.contexts.clone();
        if contexts.contains(&Context::Shuffled) && !asked.iter().all(|asked| desk.misleads(asked)) {
            tracing::warn!("too few other documents in the store: there is no row of shuffled summaries");
            contexts.retain(|context| *context != Context::Shuffled);
        }
        // What does not fit the window is refused before the first row and not after hours of reading.
        for &context in &contexts {
            for asked in &asked {
                desk.lay(context, asked).map_err(|error| error.of_question(&asked.question.id))?;
            }
        }
        let readers = 1 + usize::from(adapter.is_some());
        let (mut done, total) = (0, contexts.len() * readers * asked.len());
        for context in contexts {
            let plain: Arc<dyn LinearAdapter> = match (context, self.encoder.reader()) {
                (Context::Shuffled | Context::Compressed | Context::Both, Some(reader)) => reader.clone(),
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

//! What stands before a question in each row of the control table.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::Tensor;
use lloco_retrieval::{PassageConfig, PassageSplitter};

use super::{Context, EvaluateConfig};
use crate::{
    Digest, Error, Lloco, Result,
    members::Asked,
    random::SplitMix64,
    store::{Document, Store},
};

/// Tokens of a passage that the row [`Context::Retrieved`] is made of.
const PASSAGE: usize = 64;

/// What the model reads for one question.
pub(super) struct Laid {
    pub(super) summaries: Vec<Tensor<2>>,
    pub(super) ids: Vec<u32>,
    /// Positions of the context alone.
    pub(super) positions: usize,
}

/// Lays out what stands before questions.
pub(super) struct Desk<'a> {
    lloco: &'a Lloco,
    config: &'a EvaluateConfig,
    group: &'a str,
    /// The store's compressed documents, to take wrong summaries from.
    others: Vec<Document>,
    /// Passages and their vectors of the texts used so far.
    passages: HashMap<Digest, Vec<(String, Vec<f32>)>>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(lloco: &'a Lloco, config: &'a EvaluateConfig, group: &'a str) -> Result<Self> {
        let mut others = lloco.store.documents(None)?;
        others.retain(|document| document.summary.is_some());
        Ok(Self { lloco, config, group, others, passages: HashMap::new() })
    }

    /// What stands before a question in one row.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] where that, the question, and the longer of the reference answer and the longest answer that
    /// the model may give do not fit the window; others as the store's and the embedder's.
    pub(super) fn lay(&mut self, context: Context, asked: &Asked<'_>) -> Result<Laid> {
        let answer = self.lloco.prompts.answer(asked.answer())?.len().max(self.config.max_new_tokens);
        let documents: Vec<&Document> = asked.documents.iter().collect();
        let laid = match context {
            Context::Nothing => self.summaries(&[], asked)?,
            Context::Compressed => self.summaries(&documents, asked)?,
            Context::Shuffled => self.summaries(&self.wrong(asked), asked)?,
            Context::Truncated => self.text(asked, |desk, document, room| desk.lloco.head(document, room))?,
            Context::Retrieved => self.text(asked, |desk, document, room| desk.retrieved(document, asked, room))?,
            Context::Both => {
                let text = self.text(asked, |desk, document, room| desk.retrieved(document, asked, room))?;
                let Laid { summaries, positions, .. } = self.summaries(&documents, asked)?;
                Laid { summaries, ids: text.ids, positions: positions + text.positions }
            }
            Context::FullText => {
                let (text, positions) = self.lloco.text_in_window(asked, answer)?;
                let ids = self.lloco.prompts.with_text(&text, &asked.question.question)?;
                Laid { summaries: Vec::new(), ids, positions }
            }
        };
        let summaries: usize = laid.summaries.iter().map(|rows| rows.dims()[0]).sum();
        let positions = summaries + laid.ids.len() + answer;
        let window = self.lloco.encoder.decoder().config().max_position_embeddings;
        if positions > window { Err(Error::PromptTooLong { positions, window }) } else { Ok(laid) }
    }

    fn summaries(&self, documents: &[&Document], asked: &Asked<'_>) -> Result<Laid> {
        let lloco = self.lloco;
        let rows = documents.iter().map(|document| Ok(lloco.rows(lloco.store.summary(&document.id, &lloco.info)?)));
        let summaries: Vec<Tensor<2>> = rows.collect::<Result<_>>()?;
        let positions = summaries.iter().map(|rows| rows.dims()[0]).sum();
        Ok(Laid { summaries, ids: lloco.prompts.question(&asked.question.question)?, positions })
    }

    /// Whether there are as many other documents as the question has.
    pub(super) fn misleads(&self, asked: &Asked<'_>) -> bool {
        self.wrong(asked).len() == asked.documents.len()
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

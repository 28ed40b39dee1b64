//! From documents to samples: which comes when, and which of its text.

use lloco_decoder::mix;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    Stage,
    corpus::{Corpus, Piece},
    losses::{Kind, Losses},
    sample::Sample,
    window::Window,
};
use crate::{Error, Result};

/// Bytes that a token may have on average before more text is tried.
const BYTES_A_TOKEN: usize = 8;

/// Text to token ids, and the words around a question.
pub trait Wording {
    /// The ids of a text, nothing added.
    ///
    /// # Errors
    /// When the tokenizer cannot read the text.
    fn text(&self, text: &str) -> Result<Vec<u32>>;

    /// The prompt that asks `question` behind summary vectors.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    fn question(&self, question: &str) -> Result<Vec<u32>>;

    /// An answer with the token that ends it.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    fn answer(&self, answer: &str) -> Result<Vec<u32>>;
}

/// Draws samples. What the n-th draw gives is a function of seed and n alone, so that a resumed run goes on as if it
/// had never stopped.
pub(crate) struct Sampler<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) wording: &'a dyn Wording,
    pub(crate) window: Window<'a>,
    pub(crate) seed: u64,
}

impl Sampler<'_> {
    /// The next `stage.batch` samples from draw `drawn` on, and the draw behind them. Pieces that are too short, or of which
    /// the stage learns nothing, are passed over.
    pub(crate) fn batch(&self, stage: &Stage, mut drawn: u64) -> Result<(Vec<Sample>, u64)> {
        let units = self.units(stage);
        let (mut samples, mut short) = (Vec::with_capacity(stage.batch), 0);
        let (mut epoch, mut order) = (u64::MAX, Vec::new());
        while samples.len() < stage.batch {
            if drawn / units != epoch {
                epoch = drawn / units;
                order = self.order(units, epoch);
            }
            let unit = order.get((drawn % units) as usize).copied().unwrap_or(0);
            // A stage that overfits sees the same text each time.
            let place = if stage.documents.is_some() { unit as u64 } else { drawn };
            let mut rng = StdRng::seed_from_u64(mix(self.seed ^ mix(place)));
            drawn += 1;
            match self.sample(&self.corpus.piece(unit)?, stage, &mut rng)? {
                Some(sample) => {
                    short = 0;
                    samples.push(sample);
                }
                None => short += 1,
            }
            // A whole epoch is among so many, wherever in its own epoch the last sample stood.
            if short >= 2 * units {
                let files = self.corpus.files().to_vec();
                return Err(Error::NoSample { stage: stage.name.clone(), files, tokens: stage.needed() });
            }
        }
        Ok((samples, drawn))
    }

    /// Questions that a stage never asks: with their answers, and behind what stands before them, they are longer than the
    /// window.
    pub(crate) fn left_out(&self, stage: &Stage) -> Result<usize> {
        let mut left_out = 0;
        if stage.losses.answer <= 0.0 {
            return Ok(left_out);
        }
        for unit in self.order(self.units(stage), 0).into_iter().filter(|unit| self.corpus.may_ask(*unit)) {
            let Piece { text, questions, .. } = self.corpus.piece(unit)?;
            // Only `kl` reads the text itself.
            let context = match stage.losses.kl > 0.0 && !questions.is_empty() {
                true => self.tokens(&text, 0, stage.context)?.map_or_else(|| self.wording.text(&text), Ok)?.len(),
                false => 0,
            };
            let room = self.window.room(stage, context);
            for (question, answer) in questions {
                let positions = self.wording.question(&question)?.len() + self.wording.answer(&answer)?.len();
                left_out += usize::from(positions > room);
            }
        }
        Ok(left_out)
    }

    /// Units that a stage draws from.
    fn units(&self, stage: &Stage) -> u64 {
        stage.documents.unwrap_or(usize::MAX).min(self.corpus.len()).max(1) as u64
    }

    /// The units of an epoch; the first `units` of one fixed order, in an order of the epoch's own.
    fn order(&self, units: u64, epoch: u64) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.corpus.len()).collect();
        all.shuffle(&mut StdRng::seed_from_u64(mix(self.seed ^ 0xfac7)));
        all.truncate(units as usize);
        all.shuffle(&mut StdRng::seed_from_u64(mix(self.seed ^ mix(epoch ^ 0xe90c))));
        all
    }

    fn sample(&self, piece: &Piece, stage: &Stage, rng: &mut StdRng) -> Result<Option<Sample>> {
        if stage.losses.answer > 0.0 && !piece.questions.is_empty() {
            let mut asked: Vec<&(String, String)> = piece.questions.iter().collect();
            asked.shuffle(rng);
            let first = asked.first().map_or("", |(_, answer)| answer);
            if let Some((start, context)) = self.around(piece, first, stage.context, rng)? {
                let room = self.window.room(stage, context.len());
                let mut questions = Vec::new();
                for (question, answer) in asked {
                    if questions.len() < stage.questions.max(1) && self.holds(piece, start, context.len(), answer)? {
                        let (question, answer) = (self.wording.question(question)?, self.wording.answer(answer)?);
                        if question.len() + answer.len() <= room {
                            questions.push((question, answer));
                        }
                    }
                }
                if !questions.is_empty() {
                    let (name, document) = (piece.name.clone(), piece.document.clone());
                    return Ok(Some(Sample { name, document, context, continuation: Vec::new(), questions }));
                }
            }
        }
        if !stage.learns_from_text() {
            return Ok(None);
        }
        let needed = stage.needed();
        let last = piece.text.len().saturating_sub(needed * 2).max(piece.from);
        let end = last.min(piece.from + (1 << 16));
        for start in [rng.random_range(piece.from..=end), piece.from] {
            if let Some(mut context) = self.tokens(&piece.text, word(&piece.text, start), needed)? {
                let continuation = context.split_off(stage.context);
                let (name, document) = (piece.name.clone(), piece.document.clone());
                return Ok(Some(Sample { name, document, context, continuation, questions: Vec::new() }));
            }
        }
        Ok(None)
    }

    /// `needed` tokens of `text` from the byte `start` on, if there are so many.
    fn tokens(&self, text: &str, start: usize, needed: usize) -> Result<Option<Vec<u32>>> {
        let mut bytes = needed * BYTES_A_TOKEN + 64;
        loop {
            let end = boundary(text, start.saturating_add(bytes));
            let mut ids = self.wording.text(text.get(start..end).unwrap_or_default())?;
            // The last token may be that of a word cut in two.
            if ids.len() > needed || (ids.len() == needed && end == text.len()) {
                ids.truncate(needed);
                return Ok(Some(ids));
            }
            if end == text.len() {
                return Ok(None);
            }
            bytes *= 2;
        }
    }

    /// The whole text if it has at most `most` tokens, else `most` tokens that hold `answer` word for word, if it is
    /// there; with the byte that they start from, or `None` for the whole text.
    #[allow(clippy::type_complexity, reason = "a start and the tokens from there on")]
    fn around(
        &self,
        piece: &Piece,
        answer: &str,
        most: usize,
        rng: &mut StdRng,
    ) -> Result<Option<(Option<usize>, Vec<u32>)>> {
        if piece.text.len() <= most * BYTES_A_TOKEN {
            let ids = self.wording.text(&piece.text)?;
            if (1..=most).contains(&ids.len()) {
                return Ok(Some((None, ids)));
            }
        }
        let Some(found) = piece.text.find(answer.trim()) else { return Ok(None) };
        // About as many bytes as the tokens surely have, so that the answer is among them.
        let room = (most * 2).saturating_sub(answer.len());
        let start = word(&piece.text, found.saturating_sub(rng.random_range(0..=room)));
        Ok(self.tokens(&piece.text, start, most)?.map(|ids| (Some(start), ids)))
    }

    /// Whether `tokens` tokens from the byte `start` on hold `answer` word for word; the whole text holds all answers.
    fn holds(&self, piece: &Piece, start: Option<usize>, tokens: usize, answer: &str) -> Result<bool> {
        let Some(rest) = start.and_then(|start| piece.text.get(start..)) else { return Ok(true) };
        let Some(end) = rest.find(answer.trim()).map(|at| at + answer.trim().len()) else { return Ok(false) };
        Ok(end <= tokens * BYTES_A_TOKEN && self.wording.text(rest.get(..end).unwrap_or_default())?.len() <= tokens)
    }
}

impl Stage {
    /// Tokens that a sample of plain text has.
    pub(crate) fn needed(&self) -> usize {
        self.context + if self.follows() { self.continuation } else { 0 }
    }

    /// Whether the text behind a sample's is read.
    pub(crate) fn follows(&self) -> bool {
        self.losses.wants(Kind::Continuation)
    }

    /// Whether a sample without a question says anything.
    fn learns_from_text(&self) -> bool {
        let Losses { next_token, reconstruction, .. } = self.losses;
        next_token > 0.0 || reconstruction > 0.0 || (self.follows() && self.continuation > 0)
    }
}

/// The start of the first word at or behind a byte.
fn word(text: &str, start: usize) -> usize {
    let start = boundary(text, start);
    if start == 0 {
        return 0;
    }
    let rest = text.get(start..).unwrap_or_default();
    let near = rest.char_indices().take(64).find(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8());
    start + near
}

/// The first border between characters at or behind a byte.
fn boundary(text: &str, byte: usize) -> usize {
    (byte.min(text.len())..=text.len()).find(|&byte| text.is_char_boundary(byte)).unwrap_or(text.len())
}

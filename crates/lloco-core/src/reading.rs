//! A model that reads prompts one after the other, and says how likely an answer is and what it would answer itself; and
//! the text that it reads.

use std::sync::Arc;

use burn::tensor::Tensor;
use lloco_decoder::{Decoder, KvCache, LinearAdapter, Pass, Sampler, Sampling};
use lloco_lora::durable::values;

use crate::{
    Error, Lloco, Result,
    members::Asked,
    store::{Document, Store},
};

/// Keeps what was read: where the next prompt begins with the same text, only the rest is read.
pub(crate) struct Reading<'a> {
    decoder: &'a Decoder,
    adapter: Arc<dyn LinearAdapter>,
    cache: KvCache,
    /// The tokens in the cache, if there is nothing else in it.
    read: Vec<u32>,
    /// Positions of the prompt in the cache.
    positions: usize,
    /// The prompt's last hidden row, `[1, 1, hidden]`.
    last: Option<Tensor<3>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(decoder: &'a Decoder, adapter: Arc<dyn LinearAdapter>) -> Self {
        let cache = KvCache::new(decoder, 1, 1024);
        Self { decoder, adapter, cache, read: Vec::new(), positions: 0, last: None }
    }

    /// Reads a prompt: summary vectors `[n, hidden]`, which may be none, then tokens, at least one.
    pub(crate) fn prompt(&mut self, summaries: &[Tensor<2>], ids: &[u32]) -> Result<()> {
        let same = self.read.iter().zip(ids).take_while(|(a, b)| a == b).count();
        // The last row is wanted, so the last token is always read.
        let kept = if summaries.is_empty() { same.min(ids.len().saturating_sub(1)) } else { 0 };
        self.read.clear();
        self.cache.truncate(kept);
        let rest = self.decoder.embed_with(ids.get(kept..).unwrap_or_default(), &*self.adapter)?;
        let mut rows: Vec<Tensor<3>> = summaries.iter().map(|rows| rows.clone().unsqueeze()).collect();
        let dtype = rest.dtype();
        rows = rows.into_iter().map(|rows| rows.cast(dtype)).collect();
        rows.push(rest);
        let input = if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 1) };
        let pass = Pass::new().cache(&mut self.cache).adapter(&*self.adapter).last_rows(1);
        self.last = Some(self.decoder.forward(input, pass)?);
        self.positions = self.cache.len();
        if summaries.is_empty() {
            self.read.extend_from_slice(ids);
        }
        Ok(())
    }

    /// The hidden rows that predict `answer` behind the prompt, `[answer, hidden]`.
    pub(crate) fn rows(&mut self, answer: &[u32]) -> Result<Tensor<2>> {
        let Some(last) = self.last.clone() else { return Err(lloco_decoder::Error::EmptyPrompt.into()) };
        let [_, _, width] = last.dims();
        self.cache.truncate(self.positions);
        let rows = match answer.split_last() {
            Some((_, given)) if !given.is_empty() => {
                let input = self.decoder.embed_with(given, &*self.adapter)?;
                let more = self.decoder.forward(input, Pass::new().cache(&mut self.cache).adapter(&*self.adapter))?;
                Tensor::cat(vec![last, more], 1)
            }
            _ => last,
        };
        Ok(rows.reshape([-1, width as i64]))
    }

    /// `-ln p` of each of the answer's tokens behind the prompt.
    pub(crate) fn losses(&mut self, answer: &[u32]) -> Result<Vec<f32>> {
        let rows = self.rows(answer)?;
        let losses = self.decoder.losses(rows, answer, &*self.adapter)?;
        Ok(values("the loss of an answer", losses)?)
    }

    /// What the model itself says behind the prompt, without the token that ends it.
    pub(crate) fn sample(&mut self, sampling: Sampling, max_new_tokens: usize) -> Result<Vec<u32>> {
        let Some(mut hidden) = self.last.clone() else { return Err(lloco_decoder::Error::EmptyPrompt.into()) };
        self.cache.truncate(self.positions);
        let mut sampler = Sampler::new(sampling)?;
        let mut answer = Vec::new();
        while answer.len() < max_new_tokens {
            let logits = self.decoder.logits_with(hidden, &*self.adapter).flatten::<2>(0, 1);
            let token = sampler.sample(&mut values("scores", logits)?, &[])?;
            if self.decoder.config().eos_token_ids.contains(&token) {
                break;
            }
            answer.push(token);
            let input = self.decoder.embed_with(&[token], &*self.adapter)?;
            hidden = self.decoder.forward(input, Pass::new().cache(&mut self.cache).adapter(&*self.adapter))?;
        }
        Ok(answer)
    }
}

impl Lloco {
    /// The texts of a question's documents, as far as the model's window reaches behind them for question and an answer of
    /// so many tokens, and the positions that they take.
    pub(crate) fn text_in_window(&self, asked: &Asked<'_>, answer: usize) -> Result<(String, usize)> {
        let window = self.encoder.decoder().config().max_position_embeddings;
        // Texts are joined by blank lines, and tokens may join differently with the words around them.
        let overhead = self.prompts.with_text("", &asked.question.question)?.len() + answer + 8 * asked.documents.len();
        let mut room = window.checked_sub(overhead).ok_or(Error::PromptTooLong { positions: overhead, window })?;
        let (mut texts, mut positions) = (Vec::new(), 0);
        for document in &asked.documents {
            let (text, taken) = self.head(document, room)?;
            (room, positions) = (room - taken, positions + taken);
            texts.push(text);
        }
        Ok((texts.join("\n\n"), positions))
    }

    /// The first tokens of a document's text, and how many they are.
    pub(crate) fn head(&self, document: &Document, most: usize) -> Result<(String, usize)> {
        self.cut(self.store.text(&document.text)?, most)
    }

    /// The first tokens of a text, and how many they are.
    pub(crate) fn cut(&self, mut text: String, most: usize) -> Result<(String, usize)> {
        let (ids, offsets) = self.prompts.tokenizer().encode_with_offsets(&text)?;
        if let Some(range) = offsets.get(most) {
            text.truncate(text.floor_char_boundary(range.start));
        }
        Ok((text, ids.len().min(most)))
    }
}

//! Generating text: prefill once, then one token at a time.

use std::time::{Duration, Instant};

use burn::tensor::Tensor;

use crate::{Decoder, Error, KvCache, LinearAdapter, Pass, Prompt, Result, Sampler, Sampling, at_once::at_once};

/// How to generate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerateConfig {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens that end the generation beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Whether the model's own end tokens end the generation.
    pub stop_at_end: bool,
}

impl GenerateConfig {
    /// Greedy generation of at most `max_new_tokens` tokens.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, sampling: Sampling::greedy(), stop_tokens: Vec::new(), stop_at_end: true }
    }

    /// Chooses tokens by `sampling`.
    #[must_use]
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Ends at any of these tokens, too.
    #[must_use]
    pub fn with_stop_tokens(mut self, tokens: &[u32]) -> Self {
        self.stop_tokens.extend_from_slice(tokens);
        self
    }

    fn stops(&self, decoder: &Decoder, token: u32) -> bool {
        let own = self.stop_at_end && decoder.config().eos_token_ids.contains(&token);
        own || self.stop_tokens.contains(&token)
    }
}

/// The tokens that follow a prompt, computed as they are asked for. The stop token is not among them.
#[must_use]
pub struct Generation<'a> {
    decoder: &'a Decoder,
    adapter: Box<dyn LinearAdapter + 'a>,
    config: GenerateConfig,
    sampler: Sampler,
    cache: KvCache,
    /// Token ids of prompt and answer so far, for the repetition penalty.
    seen: Vec<u32>,
    next: Next,
    produced: usize,
    positions: usize,
    prefill: Duration,
}

/// What the next call has to do.
enum Next {
    /// Choose from these scores `[vocab]`.
    Choose(Vec<f32>),
    /// Read this token first.
    Read(u32),
    Done,
}

impl Decoder {
    /// Reads the prompt and returns an iterator over the tokens that follow. It ends behind an error, such as
    /// [`Error::NoScores`] where weights or embeddings that are not finite leave nothing to choose from.
    ///
    /// # Errors
    /// When the prompt is empty or does not fit the model, or a setting is out of range.
    pub fn generate<'a>(
        &'a self,
        prompt: &Prompt,
        config: &GenerateConfig,
        adapter: impl LinearAdapter + 'a,
    ) -> Result<Generation<'a>> {
        let sampler = Sampler::new(config.sampling.clone())?;
        let start = Instant::now();
        let input = self.embed_prompt(prompt, &adapter)?;
        let mut cache = KvCache::new(self, 1, prompt.positions() + config.max_new_tokens);
        let hidden = self.forward(input, Pass::new().cache(&mut cache).adapter(&adapter).last_rows(1))?;
        let mut scores = read_scores(self.logits_with(hidden, &adapter))?;
        let next = if config.max_new_tokens == 0 { Next::Done } else { Next::Choose(scores.swap_remove(0)) };
        Ok(Generation {
            decoder: self,
            adapter: Box::new(adapter),
            sampler,
            cache,
            seen: prompt.token_ids().collect(),
            next,
            produced: 0,
            positions: prompt.positions(),
            prefill: start.elapsed(),
            config: config.clone(),
        })
    }

    /// Generates behind several prompts at once; equal to [`generate`](Self::generate) on each alone.
    ///
    /// Each sequence draws from a sampler of its own, all with the same seed. Stop tokens are left out.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and [`Error::NoScores`] if the scores of a sequence that goes on are no numbers.
    pub fn generate_batch(
        &self,
        prompts: &[Prompt],
        config: &GenerateConfig,
        adapter: &dyn LinearAdapter,
    ) -> Result<Vec<Vec<u32>>> {
        let longest = prompts.iter().map(Prompt::positions).max().unwrap_or(0);
        if longest == 0 {
            return Err(Error::EmptyPrompt);
        }
        let padding: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.positions()).collect();
        let rows = prompts.iter().zip(&padding).map(|(prompt, &pad)| {
            let rows = self.embed_prompt(prompt, adapter)?;
            let [_, _, width] = rows.dims();
            let blank = || Tensor::zeros([1, pad, width], (&rows.device(), rows.dtype()));
            Ok(if pad == 0 { rows } else { Tensor::cat(vec![blank(), rows], 1) })
        });
        let mut input = Tensor::cat(rows.collect::<Result<Vec<_>>>()?, 0);
        let mut sequences: Vec<Sequence> =
            prompts.iter().map(|prompt| Sequence::new(prompt, config)).collect::<Result<_>>()?;
        let mut cache = KvCache::new(self, prompts.len(), longest + config.max_new_tokens);
        for _ in 0..config.max_new_tokens {
            let pass = Pass::new().cache(&mut cache).adapter(adapter).padding(&padding).last_rows(1);
            let scores = scores(self, input, pass, adapter)?;
            let mut tokens = Vec::with_capacity(scores.len());
            for (sequence, mut scores) in sequences.iter_mut().zip(scores) {
                tokens.push(sequence.step(self, config, &mut scores)?);
            }
            if sequences.iter().all(|sequence| sequence.stopped.is_some()) {
                break;
            }
            input = self.embed_with(&tokens, adapter)?.swap_dims(0, 1);
        }
        Ok(sequences.into_iter().map(|sequence| sequence.answer).collect())
    }
}

/// One sequence of a batch.
struct Sequence {
    sampler: Sampler,
    seen: Vec<u32>,
    answer: Vec<u32>,
    /// The token that ended it.
    stopped: Option<u32>,
}

impl Sequence {
    fn new(prompt: &Prompt, config: &GenerateConfig) -> Result<Self> {
        let sampler = Sampler::new(config.sampling.clone())?;
        Ok(Self { sampler, seen: prompt.token_ids().collect(), answer: Vec::new(), stopped: None })
    }

    /// Chooses the next token; a finished sequence repeats its last one unread.
    fn step(&mut self, decoder: &Decoder, config: &GenerateConfig, scores: &mut [f32]) -> Result<u32> {
        if let Some(token) = self.stopped {
            return Ok(token);
        }
        let token = self.sampler.sample(scores, &self.seen)?;
        if config.stops(decoder, token) {
            self.stopped = Some(token);
        } else {
            self.seen.push(token);
            self.answer.push(token);
        }
        Ok(token)
    }
}

impl Generation<'_> {
    /// Positions of the prompt.
    pub fn prompt_positions(&self) -> usize {
        self.positions
    }

    /// How long reading the prompt took.
    pub fn prefill_time(&self) -> Duration {
        self.prefill
    }

    fn step(&mut self) -> Result<Option<u32>> {
        let mut scores = match std::mem::replace(&mut self.next, Next::Done) {
            Next::Done => return Ok(None),
            Next::Choose(scores) => scores,
            Next::Read(token) => {
                let input = self.decoder.embed_with(&[token], &*self.adapter)?;
                let pass = Pass::new().cache(&mut self.cache).adapter(&*self.adapter);
                scores(self.decoder, input, pass, &*self.adapter)?.swap_remove(0)
            }
        };
        let token = self.sampler.sample(&mut scores, &self.seen)?;
        if self.config.stops(self.decoder, token) {
            return Ok(None);
        }
        self.seen.push(token);
        self.produced += 1;
        if self.produced < self.config.max_new_tokens {
            self.next = Next::Read(token);
        }
        Ok(Some(token))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The scores behind `input`, one vector a sequence.
fn scores(decoder: &Decoder, input: Tensor<3>, pass: Pass<'_>, adapter: &dyn LinearAdapter) -> Result<Vec<Vec<f32>>> {
    at_once(decoder.device(), || read_scores(decoder.logits_with(decoder.forward(input, pass)?, adapter)))
}

/// Logits `[batch, 1, vocab]` on the host, one vector a sequence; never empty.
fn read_scores(logits: Tensor<3>) -> Result<Vec<Vec<f32>>> {
    let [_, _, vocab] = logits.dims();
    let failed =
        |e: String| Error::Mismatch { what: "reading scores from the device", expected: "f32 values".into(), found: e };
    let data = logits.try_into_data().map_err(|e| failed(format!("{e:?}")))?;
    let values = data.as_slice::<f32>().map_err(|e| failed(format!("{e:?}")))?;
    Ok(values.chunks_exact(vocab).map(<[f32]>::to_vec).collect())
}

//! The model and the document that benches work on, and the work that they time.

use std::{env, error::Error, sync::Arc, time::Instant};

use lloco_core::{
    AutoCompressor, Checkpoint, ContextEncoder as _, Decoder, EncoderConfig, EncoderOptions, GenerateConfig, KvCache,
    LoraConfig, ModelSource, NoAdapter, Pass, Prompt, Tokenizer, WeightType, dataset,
};
use lloco_decoder::{
    DecoderConfig, LinearAdapter,
    burn::tensor::{Tensor, TensorData},
    measured,
};
use lloco_lora::{
    Adapter, Example, SummaryVectors,
    finetune::{AdamW, batch_gradients},
};

use crate::{device, limit::wait};

/// Whatever went wrong.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tokens of a measured answer.
const ANSWER: usize = 32;

/// What an answer took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// Positions of the prompt.
    pub positions: usize,
    /// Seconds until the scores of the first token were there.
    pub prefill: f64,
    /// Seconds of the steps behind it.
    pub decode: f64,
    /// Tokens behind the first.
    pub steps: usize,
}

impl Answer {
    /// Seconds from the prompt to the last token.
    pub fn seconds(&self) -> f64 {
        self.prefill + self.decode
    }
}

/// A model with its encoder, and a document of any length.
///
/// The model is the default one unless `LLOCO_MODEL` names another: a directory, a GGUF file, a hub id, or
/// `random:FILE` for random weights in the shape that a `config.json` gives. `LLOCO_WEIGHTS` (auto, f32, bf16, int8, q4)
/// chooses how the weights are held; they are on the [`device`] that was asked for.
pub struct Subject {
    encoder: AutoCompressor,
    /// Random weights have none; their documents are token ids of no meaning.
    tokenizer: Option<Tokenizer>,
    question: Vec<u32>,
    /// Bytes of the weights that a decoded token reads.
    weight_bytes: usize,
}

impl Subject {
    /// Loads the model.
    ///
    /// # Errors
    /// When the model cannot be had, or an unknown device or type is asked for.
    pub fn load() -> Result<Self> {
        let model = env::var("LLOCO_MODEL").ok();
        let (checkpoint, tokenizer) = match model.as_deref() {
            Some(name) if name.starts_with("random:") => {
                let shape = DecoderConfig::from_file(name.trim_start_matches("random:"))?;
                (Checkpoint::random(shape, 1), None)
            }
            name => {
                let source = name.map_or_else(ModelSource::default_model, ModelSource::from);
                let checkpoint = Checkpoint::open(source.resolve()?)?;
                let tokenizer = checkpoint.tokenizer()?;
                (checkpoint, Some(tokenizer))
            }
        };
        let decoder = Arc::new(Decoder::load(&checkpoint, weights()?, &device()?)?);
        let weight_bytes = measured::weight_bytes(&decoder);
        let encoder = AutoCompressor::load(&checkpoint, decoder, &EncoderOptions::default())?;
        let question = match &tokenizer {
            Some(tokenizer) => tokenizer.encode("\nQuestion: Which firm got the contract?\nAnswer:")?,
            None => (3..15).collect(),
        };
        Ok(Self { encoder, tokenizer, question, weight_bytes })
    }

    /// The first `tokens` token ids of a generated archive of reports.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn document(&self, tokens: usize) -> Result<Vec<u32>> {
        let Some(tokenizer) = &self.tokenizer else {
            let vocabulary = self.decoder().config().vocab_size as u64;
            return Ok((0..tokens as u64).map(|i| (i.wrapping_mul(2_654_435_761) % vocabulary) as u32).collect());
        };
        // A report has some 220 tokens.
        let mut ids = tokenizer.encode(&dataset::archive(1, tokens / 200 + 10).text)?;
        ids.truncate(tokens);
        match ids.len() == tokens {
            true => Ok(ids),
            false => Err(format!("the archive has only {} tokens", ids.len()).into()),
        }
    }

    /// The language model.
    pub fn decoder(&self) -> &Decoder {
        self.encoder.decoder()
    }

    /// The token ids of the question.
    pub fn question(&self) -> &[u32] {
        &self.question
    }

    /// Bytes that one decoding step of `batch` sequences has to move, each behind `past` positions of its own: the weights
    /// once, and all their caches.
    pub fn step_bytes(&self, batch: usize, past: usize) -> f64 {
        let DecoderConfig { num_hidden_layers, num_key_value_heads, head_dim, .. } = *self.decoder().config();
        let cached = 2 * num_hidden_layers * num_key_value_heads * head_dim * batch * past;
        (self.weight_bytes + cached * measured::cached_bytes(self.decoder())) as f64
    }

    /// Operations a second that the linear kernel reaches alone with weights of the model's type.
    pub fn product_rate(&self) -> f64 {
        self.decoder().product_rate()
    }

    /// Floating-point operations to compress `tokens` tokens. Each segment is read with its summary tokens and the newest
    /// summary, behind the summaries before that.
    pub fn compress_operations(&self, tokens: usize) -> f64 {
        let EncoderConfig { segment_length, summary_length, .. } = *self.encoder.config();
        let operations = |(done, at): (usize, usize)| {
            let (unread, read) = (done.min(1), done.saturating_sub(1));
            let new = segment_length.min(tokens - at) + (1 + unread) * summary_length;
            self.decoder().config().operations(new, read * summary_length, summary_length)
        };
        (0..tokens).step_by(segment_length).enumerate().map(operations).sum()
    }

    /// Floating-point operations to read `tokens` tokens of text up to the hidden row of the last.
    pub fn prefill_operations(&self, tokens: usize) -> f64 {
        self.decoder().config().operations(tokens, 0, 1)
    }

    /// Floating-point operations of a finetuning step over `positions` positions: forward, and as much again for the
    /// gradients of the inputs. Frozen weights have none.
    pub fn finetuning_operations(&self, positions: usize) -> f64 {
        2.0 * self.prefill_operations(positions)
    }

    /// Floating-point operations to read the prompt of an answer.
    pub fn answer_operations(&self, answer: &Answer) -> f64 {
        self.prefill_operations(answer.positions)
    }

    /// Bytes that decoding an answer has to move.
    pub fn answer_bytes(&self, answer: &Answer) -> f64 {
        (0..answer.steps).map(|step| self.step_bytes(1, answer.positions + step)).sum()
    }

    /// Tokens that the model can read as text.
    pub fn window(&self) -> usize {
        self.decoder().config().max_position_embeddings
    }

    /// Compresses a document; returns its summary vectors, once they are computed.
    ///
    /// # Errors
    /// As [`encode`](lloco_core::ContextEncoder::encode).
    pub fn compress(&self, ids: &[u32]) -> Result<Tensor<2>> {
        let softprompt = self.encoder.encode(ids)?;
        wait(softprompt.clone().unsqueeze());
        Ok(softprompt)
    }

    /// Summary vectors of a document of `tokens` tokens, of the size of real embeddings but made up.
    pub fn summaries(&self, tokens: usize) -> Tensor<2> {
        let (rows, decoder) = (self.encoder.config().summary_vectors(tokens), self.decoder());
        let hidden = decoder.config().hidden_size;
        Tensor::from_data(TensorData::new(made_up(rows * hidden), [rows, hidden]), decoder.device())
    }

    /// Reads a text into a cache of `batch` sequences, each of which begins with it; returns the cache.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn prefill(&self, batch: usize, ids: &[u32]) -> Result<KvCache> {
        let decoder = self.decoder();
        let mut cache = KvCache::new(decoder, batch, ids.len() + ANSWER);
        let input = decoder.embed(ids)?.repeat_dim(0, batch);
        let hidden = decoder.forward(input, Pass::new().cache(&mut cache).last_rows(1))?;
        wait(decoder.logits(hidden));
        Ok(cache)
    }

    /// Decodes one token of each of the cache's `batch` sequences; the cache is left as it was.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn decode(&self, batch: usize, cache: &mut KvCache, adapter: &dyn LinearAdapter) -> Result<()> {
        let (decoder, past) = (self.decoder(), cache.len());
        let input = decoder.embed(&vec![self.question[0]; batch])?.swap_dims(0, 1);
        let hidden = decoder.forward(input, Pass::new().cache(cache).adapter(adapter))?;
        wait(decoder.logits(hidden));
        cache.truncate(past);
        Ok(())
    }

    /// An adapter of rank 16 on all seven projections, as read from a file.
    ///
    /// # Errors
    /// As [`Adapter::from_parameters`].
    pub fn adapter(&self) -> Result<Adapter> {
        let (decoder, config) = (self.decoder(), LoraConfig::default().with_rank(16, 32.0).with_all_linear());
        let new = Adapter::init(&config, decoder.config(), 1, decoder.device())?;
        let tensors = new.parameters().into_iter().map(|(name, tensor)| (name, tensor.into_data())).collect();
        Ok(Adapter::from_parameters(config, decoder.config(), tensors, "adapter".as_ref(), decoder.device())?)
    }

    /// The prompt that asks a question behind summary vectors.
    pub fn behind_summaries(&self, softprompt: Tensor<2>) -> Prompt {
        Prompt::new().embeddings(softprompt).text(&self.question)
    }

    /// The prompt that asks a question behind a text.
    pub fn behind_text(&self, ids: &[u32]) -> Prompt {
        Prompt::new().text(ids).text(&self.question)
    }

    /// Answers with 32 tokens.
    ///
    /// # Errors
    /// As [`Decoder::generate`].
    pub fn answer(&self, prompt: &Prompt) -> Result<Answer> {
        let mut config = GenerateConfig::greedy(ANSWER);
        config.stop_at_end = false;
        let mut generation = self.decoder().generate(prompt, &config, NoAdapter)?;
        let prefill = generation.prefill_time().as_secs_f64();
        generation.next().transpose()?;
        let start = Instant::now();
        let steps = generation.try_fold(0, |count, token| token.map(|_| count + 1))?;
        Ok(Answer { positions: prompt.positions(), prefill, decode: start.elapsed().as_secs_f64(), steps })
    }

    /// A finetuning step's work: forward, backward and update of a rank-8 adapter on the attention projections, on one
    /// example of `vectors` summary vectors, `prompt` tokens and an answer of `answer` tokens.
    ///
    /// # Errors
    /// As [`batch_gradients`].
    pub fn finetuning(&self, vectors: usize, prompt: usize, answer: usize) -> Result<impl FnMut() -> Result<()> + '_> {
        let decoder = self.decoder();
        let hidden = decoder.config().hidden_size;
        let mut ids = self.document(prompt + answer)?;
        let answer = ids.split_off(prompt);
        let mut example = Example::new("bench", ids, answer);
        if vectors > 0 {
            example = example.with_prefix(SummaryVectors::new(made_up(vectors * hidden), hidden)?);
        }
        let mut adapter = Adapter::init(&LoraConfig::default(), decoder.config(), 1, decoder.device())?;
        let mut optimizer = AdamW::new(&lloco_core::TrainConfig::default());
        Ok(move || {
            let batch = batch_gradients(decoder, &adapter, &[&example], 1, None)?;
            adapter = optimizer.step(1e-4, &adapter, &batch.gradients);
            Ok(())
        })
    }
}

/// Numbers of the size of real embeddings; their values do not matter to the time.
fn made_up(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect()
}

fn weights() -> Result<WeightType> {
    Ok(match env::var("LLOCO_WEIGHTS").as_deref() {
        Err(_) | Ok("auto") => WeightType::Auto,
        Ok("f32") => WeightType::F32,
        Ok("bf16") => WeightType::Bf16,
        Ok("int8") => WeightType::Int8,
        Ok("q4") => WeightType::Q4,
        Ok(other) => return Err(format!("LLOCO_WEIGHTS={other}: expected auto, f32, bf16, int8 or q4").into()),
    })
}

/// The most memory that this process held, in bytes, where the system tells.
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

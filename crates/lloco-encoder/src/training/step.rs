//! One step: from a batch to new weights, which are taken only if they are numbers.

use std::{collections::BTreeMap, time::Instant};

use lloco_decoder::{burn::tensor::Tensor, mix};
use lloco_lora::durable::values;
use serde::Serialize;

use super::{
    CompressorTrainer, Stage,
    batch::batch_gradients,
    losses::{Kind, Tally},
    start::{mean_embedding, rarity_score},
};
use crate::{Error, Mode, Result};

/// What one step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CompressorStep {
    /// The step, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub of: usize,
    /// Name of the stage.
    pub stage: String,
    /// The sum of all losses under their weights, before the step.
    pub loss: f64,
    /// Each loss by itself, a mean over its tokens, without its weight; `gap` is how much worse another document's
    /// summaries are.
    pub losses: BTreeMap<String, f64>,
    /// Tokens of text that were compressed.
    pub tokens: usize,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The share of the stage's learning rates.
    pub rate: f64,
    /// Time taken.
    pub seconds: f64,
    /// Floating-point operations of the model, as [`Decoder::operations`](lloco_decoder::Decoder::operations) counts them:
    /// reading texts, reading them again with gradients, and reading behind their summaries.
    pub operations: f64,
}

impl CompressorTrainer<'_> {
    /// Does the next step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when losses, gradients or what the step makes of the weights are no numbers; weights are then
    /// as before.
    pub fn step(&mut self) -> Result<CompressorStep> {
        let (start, operations) = (Instant::now(), self.decoder.operations());
        if self.step == 0 && self.origin.is_none() {
            self.begin()?;
        }
        let Some((index, within)) = self.curriculum.stage_of(self.step) else {
            let (found, expected) = (self.step.to_string(), "a step of the curriculum: all are done".into());
            return Err(Error::InvalidSetting { field: "step", found, expected });
        };
        let Some(stage) = self.curriculum.stages.get(index) else { return Err(Error::EmptyDocument) };
        let seed = mix(self.curriculum.seed ^ mix(self.step as u64));
        let (samples, drawn) = self.sampler(self.corpus).batch(stage, self.drawn)?;
        let not_finite = |what: String| {
            let samples = samples.iter().map(|sample| sample.name.clone()).collect();
            Err(Error::NotFinite { what, step: self.step + 1, samples })
        };
        let micro_batch = self.curriculum.micro_batch;
        let (tally, mut gradients) =
            batch_gradients(self.decoder, &self.compressor, stage, &samples, micro_batch, seed)?;
        let grad_norm = gradients.norm()?;
        let loss = total(&tally, stage);
        if !loss.is_finite() || !grad_norm.is_finite() {
            return not_finite(format!("loss {loss}, norm of the gradients {grad_norm}"));
        }
        let most = self.curriculum.optimizer.max_grad_norm;
        if grad_norm > most {
            gradients = gradients.scaled(most / (grad_norm + 1e-6));
        }
        let rate = stage.rate_at(within);
        let (rates, mut optimizer) = (stage.learning_rates, self.optimizer.clone());
        let weights = self.compressor.weights.map(|name, parameter| match gradients.get(name) {
            Some(gradient) => optimizer.update(rates.of(name) * rate, name, parameter, gradient),
            None => parameter,
        });
        if let Some(name) = not_a_number(weights.parameters().into_iter().chain(optimizer.state()))? {
            return not_finite(format!("loss {loss}, norm of the gradients {grad_norm}, but no numbers in `{name}`"));
        }
        let report = CompressorStep {
            step: self.step + 1,
            of: self.curriculum.steps(),
            stage: stage.name.clone(),
            loss,
            losses: tally.means(),
            tokens: samples.iter().map(|sample| sample.context.len()).sum(),
            grad_norm,
            rate,
            seconds: start.elapsed().as_secs_f64(),
            operations: self.decoder.operations() - operations,
        };
        (self.compressor.weights, self.optimizer) = (weights, optimizer);
        self.step += 1;
        self.compressor.config.steps = self.step + self.origin.as_ref().map_or(0, |origin| origin.steps);
        self.drawn = drawn;
        Ok(report)
    }

    /// Lets the connector start from the text to learn from.
    fn begin(&mut self) -> Result<()> {
        let (Mode::Pooled(pooled), Some(stage)) = (&self.curriculum.mode, self.curriculum.stages.first()) else {
            return Ok(());
        };
        let (samples, _) = self.sampler(self.corpus).batch(&Stage { batch: 256, ..stage.clone() }, 0)?;
        let (center, score) = (mean_embedding(self.decoder, &samples)?, rarity_score(self.decoder, pooled, &samples)?);
        if let Some(connector) = &mut self.compressor.weights.connector {
            (connector.center, connector.score) = (center, score);
        }
        Ok(())
    }
}

/// The sum of all losses under their weights.
fn total(tally: &Tally, stage: &Stage) -> f64 {
    let losses = &stage.losses;
    let own = Kind::ALL.map(|kind| (kind.name(), losses.weight(kind)));
    let others = [("next_token", losses.next_token), ("kl", losses.kl), ("binding", losses.binding)];
    own.into_iter().chain(others).filter_map(|(name, weight)| Some(weight * tally.mean(name)?)).sum()
}

/// The first of these tensors that holds something else than numbers, or numbers whose sum f32 cannot hold.
fn not_a_number(tensors: impl Iterator<Item = (String, Tensor<2>)>) -> Result<Option<String>> {
    let (names, sums): (Vec<String>, Vec<Tensor<1>>) = tensors.map(|(name, tensor)| (name, tensor.abs().sum())).unzip();
    if sums.is_empty() {
        return Ok(None);
    }
    let sums = values("sums of the weights", Tensor::cat(sums, 0))?;
    Ok(names.into_iter().zip(sums).find_map(|(name, sum)| (!sum.is_finite()).then_some(name)))
}

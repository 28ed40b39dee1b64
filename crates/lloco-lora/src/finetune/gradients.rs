//! What one effective batch says about the adapter, and what held-out examples say about its use.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use lloco_decoder::{Decoder, LinearAdapter, backward, mix};
use serde::Serialize;

use super::{Dropout, Example, micro_batch::MicroBatch};
use crate::{Adapter, Error, Result, tensor_file};

/// Gradients by parameter name.
#[derive(Debug, Clone, Default)]
pub struct NamedGradients(BTreeMap<String, Tensor<2>>);

/// Loss and gradients of one effective batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchGradients {
    /// Mean of `-ln p` over the answers' tokens.
    pub loss: f64,
    /// The answers' tokens.
    pub tokens: usize,
    /// Gradients of `loss`.
    pub gradients: NamedGradients,
}

/// Loss and gradients of a batch, over forward passes of at most `batch_size` examples.
///
/// The loss is the mean over *all* answer tokens of the batch: each pass is weighted by its share of them. So the
/// result does not depend on `batch_size`, as it would if means of passes were averaged.
///
/// `dropout_seed` switches the dropout of the adapter's configuration on.
///
/// # Errors
/// [`Error::NotFinite`] when the loss of an example is no number.
pub fn batch_gradients(
    decoder: &Decoder,
    adapter: &Adapter,
    examples: &[&Example],
    batch_size: usize,
    dropout_seed: Option<u64>,
) -> Result<BatchGradients> {
    let tokens: usize = examples.iter().map(|example| example.answer_ids.len()).sum();
    if tokens == 0 {
        return Err(Error::NoExamples);
    }
    let adapter = adapter.tracked();
    let weight = 1.0 / tokens as f64;
    let mut total = BatchGradients { loss: 0.0, tokens, gradients: NamedGradients::default() };
    for (index, micro) in MicroBatch::divide(examples, batch_size).into_iter().enumerate() {
        let dropout = dropout_seed.map(|seed| Dropout { adapter: &adapter, seed: mix(seed ^ mix(index as u64)) });
        let seam: &dyn LinearAdapter = match &dropout {
            Some(dropout) => dropout,
            None => &adapter,
        };
        let scored = micro.score(decoder, &adapter, seam, weight, true)?;
        let bad: Vec<String> = micro
            .by_example(&scored.nll)
            .filter(|(_, _, nll)| nll.iter().any(|nll| !nll.is_finite()))
            .map(|(_, example, _)| example.name.clone())
            .collect();
        if !bad.is_empty() {
            return Err(Error::NotFinite { what: "the loss is not a number".into(), step: 0, examples: bad });
        }
        total.loss += scored.nll.iter().map(|&nll| f64::from(nll)).sum::<f64>() * weight;
        total.gradients.merge(scored.gradients);
        if let Some(surrogate) = scored.surrogate {
            total.gradients.add(adapter.gradients(&mut backward(&surrogate)));
        }
    }
    Ok(total)
}

/// How well answers are predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean of `-ln p` over all answer tokens.
    pub nll: f64,
    /// The answers' tokens.
    pub tokens: usize,
    /// Mean of `-ln p` over each example's answer tokens, in the order of the examples.
    pub by_example: Vec<f64>,
}

/// Scores the answers of examples under an adapter, without training.
///
/// # Errors
/// [`Error::NoExamples`] for none, [`Error::Example`] for one that does not fit the model.
pub fn evaluate(decoder: &Decoder, adapter: &Adapter, examples: &[Example], batch_size: usize) -> Result<Evaluation> {
    for (index, example) in examples.iter().enumerate() {
        example.check(index, decoder.config())?;
    }
    let tokens: usize = examples.iter().map(|example| example.answer_ids.len()).sum();
    if tokens == 0 {
        return Err(Error::NoExamples);
    }
    let all: Vec<&Example> = examples.iter().collect();
    let mut by_example = Vec::with_capacity(examples.len());
    let mut sum = 0.0;
    for micro in MicroBatch::divide(&all, batch_size) {
        let scored = micro.score(decoder, adapter, adapter, 1.0, false)?;
        for (place, _, nll) in micro.by_example(&scored.nll) {
            let own: f64 = nll.iter().map(|&nll| f64::from(nll)).sum();
            sum += own;
            by_example.push((place, own / nll.len() as f64));
        }
    }
    by_example.sort_by_key(|&(place, _)| place);
    Ok(Evaluation {
        nll: sum / tokens as f64,
        tokens,
        by_example: by_example.into_iter().map(|(_, nll)| nll).collect(),
    })
}

impl NamedGradients {
    /// Adds gradients to those of the same name.
    pub fn add(&mut self, gradients: BTreeMap<String, Tensor<2>>) {
        for (name, gradient) in gradients {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.0.insert(name, sum);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.add(other.0);
    }

    /// The gradient of one parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor<2>> {
        self.0.get(name)
    }

    /// Names and gradients.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<2>)> {
        self.0.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// The Euclidean norm over all gradients together.
    ///
    /// # Errors
    /// When values cannot be read back from the device.
    pub fn norm(&self) -> Result<f64> {
        let squares: Vec<Tensor<1>> = self.0.values().map(|gradient| gradient.clone().square().sum()).collect();
        if squares.is_empty() {
            return Ok(0.0);
        }
        let squares = tensor_file::values("gradient norms", Tensor::cat(squares, 0))?;
        Ok(squares.into_iter().map(f64::from).sum::<f64>().sqrt())
    }

    /// All gradients times `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|(name, gradient)| (name, gradient.mul_scalar(factor))).collect())
    }
}

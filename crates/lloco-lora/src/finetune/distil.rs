//! What an effective batch says about the adapter where some of its examples have a teacher.

use burn::tensor::{Int, Tensor, TensorData};
use lloco_decoder::{Decoder, LinearAdapter, backward, mix};

use super::{BatchGradients, Dropout, Example, NamedGradients, Teacher, cross_entropy, micro_batch::MicroBatch};
use crate::{Adapter, Error, Result};

/// Loss and gradients of a batch, as [`batch_gradients`](super::batch_gradients) has them, and the mean divergence of
/// the taught answers' tokens, of which `weight` times is part of the gradients.
///
/// A replaced output head learns from the cross entropy alone.
pub(crate) fn taught_gradients(
    decoder: &Decoder,
    adapter: &Adapter,
    examples: &[&Example],
    batch_size: usize,
    dropout_seed: Option<u64>,
    weight: f64,
) -> Result<(BatchGradients, f64)> {
    let tokens: usize = examples.iter().map(|example| example.answer_ids.len()).sum();
    let taught: usize = examples.iter().filter_map(|example| example.teacher.as_ref()).map(|t| t.rows()).sum();
    let adapter = adapter.tracked();
    let mut total = BatchGradients { loss: 0.0, tokens, gradients: NamedGradients::default() };
    let mut divergence = 0.0;
    for (index, micro) in MicroBatch::divide(examples, batch_size).into_iter().enumerate() {
        let pass: Vec<&Example> = micro.examples().collect();
        let dropout = dropout_seed.map(|seed| Dropout { adapter: &adapter, seed: mix(seed ^ mix(index as u64)) });
        let seam: &dyn LinearAdapter = match &dropout {
            Some(dropout) => dropout,
            None => &adapter,
        };
        let (hidden, answers) = micro.answer_rows(decoder, &adapter, seam, true)?;
        let scored = cross_entropy(decoder, Some(&adapter), hidden.clone(), &answers, 1.0 / tokens.max(1) as f64)?;
        let mut surrogates: Vec<Tensor<1>> = scored.surrogate.into_iter().collect();
        total.gradients.merge(scored.gradients);
        total.loss += scored.nll.iter().map(|&nll| f64::from(nll)).sum::<f64>() / tokens.max(1) as f64;

        let teachers: Vec<&Teacher> = pass.iter().filter_map(|example| example.teacher.as_deref()).collect();
        let mut kl = Vec::new();
        if !teachers.is_empty() {
            let hidden = select(hidden, taught_rows(&pass));
            let found = Teacher::joined(teachers).divergence(decoder, &adapter, &hidden)?;
            kl.clone_from(&found.losses);
            divergence += kl.iter().map(|&kl| f64::from(kl)).sum::<f64>() / taught as f64;
            let weights = vec![(weight / taught as f64) as f32; kl.len()];
            surrogates.extend(found.surrogate(hidden, &weights));
        }
        if scored.nll.iter().chain(&kl).any(|loss| !loss.is_finite()) {
            let examples = pass.iter().map(|example| example.name.clone()).collect();
            return Err(Error::NotFinite { what: "the loss is not a number".into(), step: 0, examples });
        }
        if let Some(sum) = surrogates.into_iter().reduce(|a, b| a + b) {
            total.gradients.add(adapter.gradients(&mut backward(&sum)));
        }
    }
    Ok((total, divergence))
}

/// Where the taught examples' rows lie among all answers' rows.
fn taught_rows(examples: &[&Example]) -> Vec<usize> {
    let mut start = 0;
    let mut rows = Vec::new();
    for example in examples {
        let end = start + example.answer_ids.len();
        if example.teacher.is_some() {
            rows.extend(start..end);
        }
        start = end;
    }
    rows
}

fn select(rows: Tensor<2>, picks: Vec<usize>) -> Tensor<2> {
    let count = picks.len();
    let picks: Vec<i64> = picks.into_iter().map(|row| row as i64).collect();
    let picks = Tensor::<1, Int>::from_data(TensorData::new(picks, [count]), &rows.device().inner());
    rows.select(0, picks)
}

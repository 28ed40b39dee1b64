//! What the model reads behind summary vectors, and the hidden rows that predict what it should say.

use std::ops::Range;

use lloco_decoder::{
    Decoder, LinearAdapter, NoAdapter, Pass,
    burn::tensor::{Int, Tensor, TensorData, s},
};

use crate::{
    Result,
    weights::{Task, Weights},
};

/// One sequence for the model: summary vectors, a task or a prompt, and what should follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The samples of the pass whose summaries stand first, in order.
    pub(crate) prefix: Vec<usize>,
    /// The learned row behind them.
    pub(crate) task: Option<Task>,
    /// Given text.
    pub(crate) prompt: Vec<u32>,
    /// Text to be predicted; at least one token.
    pub(crate) targets: Vec<u32>,
}

impl Reading {
    /// Positions that the model reads. The last target is only predicted.
    fn positions(&self, samples: &[Range<usize>]) -> usize {
        let prefix: usize = self.prefix.iter().filter_map(|&sample| samples.get(sample)).map(Range::len).sum();
        (prefix + usize::from(self.task.is_some()) + self.prompt.len() + self.targets.len()).saturating_sub(1)
    }
}

/// Reads sequences in one pass, padded on the left. Returns the hidden rows that predict the targets, one sequence's
/// behind the other's, `[targets, hidden]`; tracked if `summaries` is.
///
/// `summaries` `[n, hidden]` holds the summary vectors of all samples, those of sample `i` in rows `samples[i]`.
pub(crate) fn read(
    decoder: &Decoder,
    weights: &Weights,
    seam: Option<&dyn LinearAdapter>,
    summaries: &Tensor<2>,
    samples: &[Range<usize>],
    readings: &[&Reading],
) -> Result<Tensor<2>> {
    let tracked = summaries.is_autodiff();
    let longest = readings.iter().map(|reading| reading.positions(samples)).max().unwrap_or(0);
    let padding: Vec<usize> = readings.iter().map(|reading| longest - reading.positions(samples)).collect();
    let mut inputs = Vec::with_capacity(readings.len());
    for (reading, &pad) in readings.iter().zip(&padding) {
        let Reading { prefix, task, prompt, targets } = reading;
        let mut rows: Vec<Tensor<3>> = Vec::new();
        let ids: Vec<u32> =
            prompt.iter().chain(targets.iter().take(targets.len().saturating_sub(1))).copied().collect();
        let text = if ids.is_empty() { None } else { Some(lifted(decoder.embed(&ids)?, tracked)) };
        let dtype = decoder.embed(&[0])?.dtype();
        if pad > 0 {
            let blank = Tensor::zeros([1, pad, decoder.config().hidden_size], (decoder.device(), dtype));
            rows.push(lifted(blank, tracked));
        }
        for range in prefix.iter().filter_map(|&sample| samples.get(sample)).filter(|range| !range.is_empty()) {
            rows.push(summaries.clone().slice(s![range.clone(), ..]).cast(dtype).unsqueeze());
        }
        if let Some(task) = *task {
            let row = task as usize;
            rows.push(lifted(weights.tasks.clone(), tracked).slice(s![row..row + 1, ..]).cast(dtype).unsqueeze());
        }
        rows.extend(text);
        inputs.push(Tensor::cat(rows, 1));
    }
    let wanted = readings.iter().map(|reading| reading.targets.len()).max().unwrap_or(1);
    let pass = Pass::new().adapter(seam.unwrap_or(&NoAdapter)).padding(&padding).last_rows(wanted);
    let hidden = decoder.forward(Tensor::cat(inputs, 0), pass)?;
    let [batch, rows, width] = hidden.dims();
    let picks: Vec<i64> = readings
        .iter()
        .enumerate()
        .flat_map(|(b, reading)| (rows - reading.targets.len()..rows).map(move |row| (b * rows + row) as i64))
        .collect();
    let count = picks.len();
    let picks = Tensor::<1, Int>::from_data(TensorData::new(picks, [count]), decoder.device());
    Ok(hidden.reshape([batch * rows, width]).select(0, picks))
}

/// A tensor in the autodiff context of its neighbours, or without one.
pub(crate) fn lifted<const D: usize>(tensor: Tensor<D>, tracked: bool) -> Tensor<D> {
    if tracked { tensor.autodiff() } else { tensor }
}

//! What the model reads behind summary vectors, and the hidden rows that predict what it should say.

use std::ops::Range;

use lloco_decoder::{
    Decoder, LinearAdapter, NoAdapter, Packing, Pass,
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
    /// Positions behind the summary vectors. The last target is only predicted.
    pub(crate) fn positions(&self) -> usize {
        (usize::from(self.task.is_some()) + self.prompt.len() + self.targets.len()).saturating_sub(1)
    }
}

/// Reads sequences in one pass. Returns the hidden rows that predict the targets, one sequence's behind the other's,
/// `[targets, hidden]`; tracked if `summaries` is. Readings of the same prefix, one behind the other, read it once.
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
    let dtype = decoder.embed(&[0])?.dtype();
    let (mut packing, mut inputs, mut picks) = (Packing::new(), Vec::<Tensor<3>>::new(), Vec::<i64>::new());
    for tree in readings.chunk_by(|a, b| a.prefix == b.prefix) {
        let prefix = tree.first().map_or(&[][..], |reading| &reading.prefix);
        let ranges = prefix.iter().filter_map(|&sample| samples.get(sample)).filter(|range| !range.is_empty());
        let trunk: Vec<Range<usize>> = ranges.cloned().collect();
        let branches: Vec<usize> = tree.iter().map(|reading| reading.positions()).collect();
        let places = packing.tree(trunk.iter().map(Range::len).sum(), &branches);
        inputs.extend(trunk.into_iter().map(|range| summaries.clone().slice(s![range, ..]).cast(dtype).unsqueeze()));
        let Some((trunk, branches)) = places.split_first() else { continue };
        for (Reading { task, prompt, targets, .. }, branch) in tree.iter().zip(branches) {
            if let Some(task) = *task {
                let row = task as usize;
                inputs.push(lifted(weights.tasks.clone(), tracked).slice(s![row..row + 1, ..]).cast(dtype).unsqueeze());
            }
            let given = targets.len().saturating_sub(1);
            let ids: Vec<u32> = prompt.iter().chain(targets.iter().take(given)).copied().collect();
            if !ids.is_empty() {
                inputs.push(lifted(decoder.embed(&ids)?, tracked));
            }
            // Each target is predicted by the row before it, the first perhaps by the trunk's last.
            let (rows, count) = (trunk.clone().chain(branch.clone()), trunk.len() + branch.len());
            picks.extend(rows.skip(count.saturating_sub(targets.len())).map(|row| row as i64));
        }
    }
    let pass = Pass::new().adapter(seam.unwrap_or(&NoAdapter)).packing(&packing);
    let hidden = decoder.forward(Tensor::cat(inputs, 1), pass)?;
    let ([_, rows, width], count) = (hidden.dims(), picks.len());
    let picks = Tensor::<1, Int>::from_data(TensorData::new(picks, [count]), decoder.device());
    Ok(hidden.reshape([rows, width]).select(0, picks))
}

/// A tensor in the autodiff context of its neighbours, or without one.
pub(crate) fn lifted<const D: usize>(tensor: Tensor<D>, tracked: bool) -> Tensor<D> {
    if tracked { tensor.autodiff() } else { tensor }
}

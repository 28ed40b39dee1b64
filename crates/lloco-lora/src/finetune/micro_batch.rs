//! Unequal examples in one pass, without padding; those about the same documents read the summaries once.

use std::iter::zip;

use burn::tensor::{Int, Tensor, TensorData};
use lloco_decoder::{Decoder, LinearAdapter, Packing, Pass};

use super::{Example, Scored, cross_entropy};
use crate::{Adapter, Result};

/// Examples that share a forward pass, each with its place in the list that was divided.
pub(crate) struct MicroBatch<'a> {
    members: Vec<(usize, &'a Example)>,
}

impl<'a> MicroBatch<'a> {
    /// Divides examples into passes of at most `size`, those about the same documents together.
    pub(crate) fn divide(examples: &[&'a Example], size: usize) -> Vec<Self> {
        let mut members: Vec<(usize, &Example)> = examples.iter().copied().enumerate().collect();
        let first = |example: &Example| examples.iter().position(|other| other.same_prefix(example));
        members.sort_by_cached_key(|(_, example)| first(example));
        members.chunks(size.max(1)).map(|members| Self { members: members.to_vec() }).collect()
    }

    /// The loss of the answers' tokens under `weight`, each example's one after the other.
    ///
    /// `seam` is what the projections see: the adapter itself, or the adapter behind dropout. A tracked adapter gives
    /// tracked scores.
    pub(crate) fn score(
        &self,
        decoder: &Decoder,
        adapter: &Adapter,
        seam: &dyn LinearAdapter,
        weight: f64,
        tracked: bool,
    ) -> Result<Scored> {
        let (hidden, targets) = self.answer_rows(decoder, adapter, seam, tracked)?;
        cross_entropy(decoder, Some(adapter), hidden, &targets, weight)
    }

    /// The examples of the pass.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &'a Example> {
        self.members.iter().map(|&(_, example)| example)
    }

    /// The hidden rows that predict the answers' tokens, one example's after the other, `[tokens, hidden]`, and the tokens.
    pub(crate) fn answer_rows(
        &self,
        decoder: &Decoder,
        adapter: &Adapter,
        seam: &dyn LinearAdapter,
        tracked: bool,
    ) -> Result<(Tensor<2>, Vec<u32>)> {
        let (mut packing, mut inputs, mut picks, mut targets) = (Packing::new(), Vec::new(), Vec::new(), Vec::new());
        for tree in self.members.chunk_by(|(_, a), (_, b)| a.same_prefix(b)) {
            let examples: Vec<&Example> = tree.iter().map(|(_, example)| *example).collect();
            let shared = Example::shared_tokens(&examples);
            let trunk = examples.first().map_or(0, |example| example.prefix_rows()) + shared;
            let branches: Vec<Vec<u32>> = examples.iter().map(|example| example.read(shared)).collect();
            let places = packing.tree(trunk, &branches.iter().map(Vec::len).collect::<Vec<_>>());
            if let Some(example) = examples.first().filter(|_| trunk > 0) {
                inputs.push(decoder.embed_prompt(&example.beginning(shared, decoder.device()), adapter)?);
            }
            for branch in branches.iter().filter(|branch| !branch.is_empty()) {
                inputs.push(decoder.embed_with(branch, adapter)?);
            }
            let Some((trunk, branches)) = places.split_first() else { continue };
            for (example, branch) in zip(examples, branches) {
                // Each token is predicted by the row before it, the first perhaps by the trunk's last.
                let rows = trunk.clone().chain(branch.clone());
                let count = trunk.len() + branch.len();
                picks.extend(rows.skip(count - example.answer_ids.len()).map(|row| row as i64));
                targets.extend_from_slice(&example.answer_ids);
            }
        }
        let mut input = Tensor::cat(inputs, 1);
        if tracked {
            input = input.autodiff();
        }
        let hidden = decoder.forward(input, Pass::new().adapter(seam).packing(&packing))?;
        let [_, rows, width] = hidden.dims();
        let count = picks.len();
        let picks = Tensor::<1, Int>::from_data(TensorData::new(picks, [count]), decoder.device());
        Ok((hidden.reshape([rows, width]).select(0, picks), targets))
    }

    /// Place, example and its tokens' losses, from the flat list that [`score`](Self::score) gives.
    pub(crate) fn by_example<'s>(
        &self,
        nll: &'s [f32],
    ) -> impl Iterator<Item = (usize, &'a Example, &'s [f32])> + use<'_, 's, 'a> {
        let mut rest = nll;
        self.members.iter().map(move |&(place, example)| {
            let (own, others) = rest.split_at(example.answer_ids.len().min(rest.len()));
            rest = others;
            (place, example, own)
        })
    }
}

//! AutoCompressor in training: segments of random lengths, each recomputed for its own backward pass.
//!
//! The forward pass keeps the summaries and nothing else. The backward pass takes the segments from the last to the
//! first: each is read again with autodiff, its summary weighted by what later readers said about it, and what it says
//! about the summaries before it is added to theirs. So memory holds one segment's activations, whatever their number.
//!
//! The softprompt is detached between substeps: what a segment says about summaries of an earlier substep is dropped.

use lloco_decoder::{
    Decoder, Pass, backward,
    burn::tensor::{Tensor, s},
    mix,
};
use lloco_lora::finetune::NamedGradients;
use rand::{Rng, rngs::StdRng};

use super::{losses::Tally, reading::lifted, score::nll};
use crate::{Error, Result, weights::Weights};

/// How texts are cut: the length of each segment, and how many segments a substep has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) lengths: Vec<usize>,
    pub(crate) substep: usize,
}

impl Cut {
    /// `substeps` equal parts of `tokens` tokens, each cut at `segments - 1` random places into segments of at least
    /// two tokens and at most `longest`.
    pub(crate) fn random(tokens: usize, substeps: usize, segments: usize, longest: usize, rng: &mut StdRng) -> Self {
        let substeps = substeps.clamp(1, tokens.max(1));
        let segments = segments.clamp(1, (tokens / substeps / 2).max(1));
        let mut lengths = Vec::with_capacity(substeps * segments);
        for substep in 0..substeps {
            let part = tokens * (substep + 1) / substeps - tokens * substep / substeps;
            lengths.extend(random_lengths(part, segments, longest, rng));
        }
        Self { lengths, substep: segments }
    }

    fn substep_of(&self, segment: usize) -> usize {
        segment / self.substep.max(1)
    }

    /// First token of each segment.
    fn starts(&self) -> Vec<usize> {
        self.lengths.iter().scan(0, |next, length| Some(std::mem::replace(next, *next + length))).collect()
    }
}

/// `total` as `n` random lengths, each at least 2 and such that none is longer than `longest` where that is possible.
fn random_lengths(total: usize, n: usize, longest: usize, rng: &mut StdRng) -> Vec<usize> {
    if n <= 1 {
        return vec![total];
    }
    let even = total / n;
    let least = total.saturating_sub(longest).div_ceil(n - 1).max(2).min(even);
    let free = total - least * n;
    let mut breaks: Vec<usize> = (0..n - 1).map(|_| rng.random_range(0..=free)).collect();
    breaks.sort_unstable();
    breaks.push(free);
    let mut last = 0;
    breaks.into_iter().map(|at| least + at - std::mem::replace(&mut last, at)).collect()
}

/// Texts of equal length on their way through the encoder together.
pub(crate) struct Recurrent<'a> {
    pub(crate) decoder: &'a Decoder,
    /// Without autodiff.
    pub(crate) weights: &'a Weights,
    /// With autodiff.
    pub(crate) tracked: &'a Weights,
    pub(crate) accumulate: bool,
    pub(crate) cut: Cut,
    pub(crate) texts: Vec<&'a [u32]>,
    /// Of dropout, if there is any.
    pub(crate) dropout: Option<u64>,
}

impl Recurrent<'_> {
    /// The summaries of all segments, each `[batch, summary_length, hidden]`.
    pub(crate) fn summaries(&self) -> Result<Vec<Tensor<3>>> {
        let mut summaries = Vec::new();
        for (segment, _) in self.cut.lengths.iter().enumerate() {
            summaries.push(self.read_behind(segment, &summaries)?);
        }
        Ok(summaries)
    }

    /// The summary of a segment behind those before it, `[batch, summary_length, hidden]`.
    pub(crate) fn read_behind(&self, segment: usize, summaries: &[Tensor<3>]) -> Result<Tensor<3>> {
        Ok(self.segment(self.weights, segment, self.prefix(summaries), false)?.1)
    }

    /// Gradients of `next_token` times the sum of all text tokens' losses, plus what `slopes`, one for each segment's
    /// summary, say.
    pub(crate) fn backward(
        &self,
        summaries: &[Tensor<3>],
        mut slopes: Vec<Tensor<3>>,
        next_token: f64,
        tally: &mut Tally,
        gradients: &mut NamedGradients,
    ) -> Result<()> {
        let starts = self.cut.starts();
        let spans = starts.iter().zip(&self.cut.lengths).enumerate().rev();
        for (segment, (&start, &length)) in spans {
            let before = summaries.get(..segment).unwrap_or_default();
            let leaves: Vec<Tensor<3>> =
                self.prefix(before).into_iter().map(|rows| rows.autodiff().require_grad()).collect();
            let (text, summary) = self.segment(self.tracked, segment, leaves.clone(), next_token > 0.0)?;
            let mut parts = Vec::new();
            if let Some(slope) = slopes.get(segment) {
                parts.push((summary * slope.clone().autodiff()).sum());
            }
            if let Some(text) = text {
                parts.extend(self.next_token(text, start, length, next_token, tally)?);
            }
            let Some(total) = parts.into_iter().reduce(|a, b| a + b) else { continue };
            let mut found = backward(&total);
            let first = segment - leaves.len();
            for (earlier, leaf) in (first..).zip(leaves) {
                let (Some(slope), Some(own)) = (leaf.grad_remove(&mut found), slopes.get_mut(earlier)) else {
                    continue;
                };
                if self.cut.substep_of(earlier) == self.cut.substep_of(segment) {
                    *own = own.clone() + slope;
                }
            }
            gradients.add(self.tracked.gradients(&mut found));
        }
        Ok(())
    }

    /// The summaries that the next segment reads, of those so far.
    fn prefix(&self, summaries: &[Tensor<3>]) -> Vec<Tensor<3>> {
        let first = if self.accumulate { 0 } else { summaries.len().saturating_sub(1) };
        summaries.get(first..).unwrap_or_default().to_vec()
    }

    /// Reads a segment of every text behind `prefix`: hidden rows of its tokens `[batch, length, hidden]`, if wanted,
    /// and its summary `[batch, summary_length, hidden]`.
    fn segment(
        &self,
        weights: &Weights,
        segment: usize,
        prefix: Vec<Tensor<3>>,
        text: bool,
    ) -> Result<(Option<Tensor<3>>, Tensor<3>)> {
        let length = self.cut.lengths.get(segment).copied().unwrap_or(0);
        let start: usize = self.cut.lengths.iter().take(segment).sum();
        let embed_summary = weights.encoder.embed_summary().ok_or(Error::EmptyDocument)?.clone();
        let tracked = embed_summary.is_autodiff();
        let batch = self.texts.len();
        let texts = self.texts.iter().map(|ids| self.decoder.embed(ids.get(start..start + length).unwrap_or_default()));
        let rows = Tensor::cat(texts.collect::<Result<Vec<_>, _>>()?, 0);
        let dtype = rows.dtype();
        let count = embed_summary.dims()[0];
        let tokens: Tensor<3> = embed_summary.cast(dtype).unsqueeze();
        let mut input: Vec<Tensor<3>> = prefix.into_iter().map(|rows| lifted(rows.cast(dtype), tracked)).collect();
        input.push(lifted(rows, tracked));
        input.push(tokens.repeat_dim(0, batch));
        let seam = weights.encoder.behind(self.dropout.map(|seed| mix(seed ^ segment as u64)));
        let wanted = if text { length + count } else { count };
        let hidden = self.decoder.forward(Tensor::cat(input, 1), Pass::new().adapter(&*seam).last_rows(wanted))?;
        let read = wanted - count;
        let text = text.then(|| hidden.clone().slice(s![.., ..read, ..]));
        Ok((text, hidden.slice(s![.., read.., ..])))
    }

    /// The loss of the tokens that the rows of a segment predict: its own behind the first, and the first of the next.
    fn next_token(
        &self,
        text: Tensor<3>,
        start: usize,
        length: usize,
        weight: f64,
        tally: &mut Tally,
    ) -> Result<Option<Tensor<1>>> {
        let [batch, _, width] = text.dims();
        let targets: Vec<&[u32]> = self
            .texts
            .iter()
            .map(|ids| ids.get(start + 1..ids.len().min(start + length + 1)).unwrap_or_default())
            .collect();
        let rows = targets.first().map_or(0, |targets| targets.len());
        if rows == 0 {
            return Ok(None);
        }
        let hidden: Tensor<2> = text.slice(s![.., ..rows, ..]).reshape([batch * rows, width]);
        let found = nll(self.decoder, &hidden, &targets.concat())?;
        let losses = &found.losses;
        tally.add("next_token", losses.iter().map(|&loss| f64::from(loss)).sum(), losses.len());
        let weights = vec![weight as f32; losses.len()];
        Ok(found.surrogate(hidden, &weights))
    }
}

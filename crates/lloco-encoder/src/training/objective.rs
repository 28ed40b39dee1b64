//! The losses of what is read behind summaries, and what they say about the summaries.

use std::ops::Range;

use lloco_decoder::{Decoder, LinearAdapter, NoAdapter, backward, burn::tensor::Tensor};
use lloco_lora::finetune::{Dropout, NamedGradients, Teacher};

use super::{
    losses::{Kind, Losses, Tally},
    reading::{Reading, read},
    sample::{Planned, Sample},
    score::nll,
};
use crate::{Result, weights::Weights};

/// Rows up to which a pass takes more readings than it has to: with more, products get no faster.
const ROWS: usize = 1024;

/// How many targets, and readings, of each kind an effective batch has: what means are taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) tokens: [usize; 3],
    pub(crate) distilled: usize,
    pub(crate) bound: usize,
}

impl Totals {
    pub(crate) fn add(&mut self, planned: &[Planned], losses: &Losses) {
        for Planned { kind, reading, .. } in planned {
            self.tokens[*kind as usize] += reading.targets.len();
            self.distilled += if losses.distils(*kind) { reading.targets.len() } else { 0 };
            self.bound += usize::from(losses.binds(*kind));
        }
    }
}

/// The losses of one stage over one model.
pub(crate) struct Objective<'a> {
    pub(crate) decoder: &'a Decoder,
    /// Tracked.
    pub(crate) weights: &'a Weights,
    pub(crate) losses: &'a Losses,
    pub(crate) totals: Totals,
    /// Readings in one pass at least, if there are so many.
    pub(crate) batch: usize,
    /// Of dropout, if there is any.
    pub(crate) seed: u64,
}

impl Objective<'_> {
    /// Losses of the readings of one group of samples behind their summary vectors `[n, hidden]`. Adds the gradients of
    /// tracked weights to `gradients` and returns that of the summary vectors, `[n, hidden]`.
    pub(crate) fn run(
        &self,
        samples: &[Sample],
        planned: &[Planned],
        summaries: &Tensor<2>,
        rows: &[Range<usize>],
        tally: &mut Tally,
        gradients: &mut NamedGradients,
    ) -> Result<Tensor<2>> {
        let mut slope = summaries.zeros_like();
        for kind in Kind::ALL {
            let mut own: Vec<&Planned> = planned.iter().filter(|planned| planned.kind == kind).collect();
            own.sort_by(|a, b| a.reading.prefix.cmp(&b.reading.prefix));
            let mut left = own.as_slice();
            while !left.is_empty() {
                let (pass, rest) = left.split_at(self.together(left, rows));
                slope = slope + self.pass(kind, samples, pass, summaries, rows, tally, gradients)?;
                left = rest;
            }
        }
        Ok(slope)
    }

    /// How many of these readings are read in one pass: `batch`, or more as long as they have few rows. Those of one prefix
    /// read it once.
    fn together(&self, readings: &[&Planned], samples: &[Range<usize>]) -> usize {
        let (mut rows, mut prefix): (usize, Option<&[usize]>) = (0, None);
        let mut fitting = 0;
        for Planned { reading, .. } in readings {
            if prefix.replace(&reading.prefix) != Some(&reading.prefix) {
                let lengths = reading.prefix.iter().filter_map(|&sample| samples.get(sample));
                rows += lengths.map(ExactSizeIterator::len).sum::<usize>();
            }
            rows += reading.positions();
            if rows > ROWS {
                break;
            }
            fitting += 1;
        }
        fitting.max(self.batch.max(1)).min(readings.len())
    }

    /// One pass over readings of one kind.
    #[allow(clippy::too_many_arguments, reason = "the state of one step, taken apart")]
    fn pass(
        &self,
        kind: Kind,
        samples: &[Sample],
        planned: &[&Planned],
        summaries: &Tensor<2>,
        rows: &[Range<usize>],
        tally: &mut Tally,
        gradients: &mut NamedGradients,
    ) -> Result<Tensor<2>> {
        let leaf = summaries.clone().inner().autodiff().require_grad();
        let dropout = self.weights.reading().map(|adapter| Dropout { adapter, seed: self.seed });
        let seam = dropout.as_ref().map(|dropout| dropout as &dyn LinearAdapter);
        let look = |readings: &[&Reading]| read(self.decoder, self.weights, seam, &leaf, rows, readings);
        let readings: Vec<&Reading> = planned.iter().map(|planned| &planned.reading).collect();
        let targets: Vec<u32> = readings.iter().flat_map(|reading| reading.targets.iter().copied()).collect();
        let hidden = look(&readings)?;
        let own = nll(self.decoder, &hidden, &targets)?;
        let losses = own.losses.clone();
        let share = self.losses.weight(kind) / self.totals.tokens[kind as usize].max(1) as f64;
        let mut weights = vec![share as f32; losses.len()];
        tally.add(kind.name(), sum(&losses), losses.len());

        let mut parts = Vec::new();
        if self.losses.binds(kind) && samples.len() > 1 {
            let misled: Vec<Reading> = planned.iter().map(|planned| planned.misled(samples)).collect();
            let misled_hidden = look(&misled.iter().collect::<Vec<_>>())?;
            let shuffled = nll(self.decoder, &misled_hidden, &targets)?;
            let mut misled_weights = vec![0.0; losses.len()];
            let share = self.losses.binding / self.totals.bound.max(1) as f64;
            let mut first = 0;
            for reading in &readings {
                let span = first..first + reading.targets.len();
                first = span.end;
                let n = span.len() as f64;
                let gap = (sum(part(&shuffled.losses, &span)) - sum(part(&losses, &span))) / n;
                let short = self.losses.binding_margin - gap;
                tally.add("binding", short.max(0.0), 1);
                tally.add("gap", gap, 1);
                if short > 0.0 {
                    weights.iter_mut().skip(span.start).take(span.len()).for_each(|w| *w += (share / n) as f32);
                    misled_weights.iter_mut().skip(span.start).take(span.len()).for_each(|w| *w -= (share / n) as f32);
                }
            }
            parts.extend(shuffled.surrogate(misled_hidden, &misled_weights));
        }
        if self.losses.distils(kind) {
            let teacher = self.teacher(samples, planned)?;
            let found = teacher.divergence(self.decoder, &NoAdapter, &hidden)?;
            tally.add("kl", sum(&found.losses), found.losses.len());
            let share = self.losses.kl / self.totals.distilled.max(1) as f64;
            let weights = vec![share as f32; found.losses.len()];
            parts.extend(found.surrogate(hidden.clone(), &weights));
        }
        parts.extend(own.surrogate(hidden, &weights));

        let Some(total) = parts.into_iter().reduce(|a, b| a + b) else { return Ok(summaries.zeros_like()) };
        let mut found = backward(&total);
        let slope = leaf.grad_remove(&mut found);
        gradients.add(self.weights.gradients(&mut found));
        Ok(slope.unwrap_or_else(|| summaries.zeros_like()))
    }

    /// What the model itself predicts for the targets behind the full text of the readings' own samples.
    fn teacher(&self, samples: &[Sample], planned: &[&Planned]) -> Result<Teacher> {
        let full: Vec<Reading> = planned
            .iter()
            .map(|planned| {
                let context = samples.get(planned.sample).map_or(&[][..], |sample| &sample.context);
                let prompt = [context, &planned.reading.prompt].concat();
                Reading { prefix: Vec::new(), task: None, prompt, targets: planned.reading.targets.clone() }
            })
            .collect();
        let nothing = Tensor::zeros([1, self.decoder.config().hidden_size], self.decoder.device());
        let hidden = read(self.decoder, self.weights, None, &nothing, &[], &full.iter().collect::<Vec<_>>())?;
        Ok(Teacher::new(self.decoder, &hidden, self.losses.kl_top)?)
    }
}

fn sum(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum()
}

fn part<'a>(losses: &'a [f32], span: &Range<usize>) -> &'a [f32] {
    losses.get(span.clone()).unwrap_or_default()
}

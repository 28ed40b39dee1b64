//! What one effective batch says about a compressor.

use std::ops::Range;

use lloco_decoder::{
    Decoder,
    burn::tensor::{Tensor, s},
    mix,
};
use lloco_lora::finetune::NamedGradients;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Stage,
    independent::Independent,
    losses::Tally,
    objective::{Objective, Totals},
    recurrent::{Cut, Recurrent},
    sample::{Plan, Planned, Sample},
    window::Window,
};
use crate::{Compressor, Error, Mode, Result, weights::Weights, windows::Windows};

/// Losses and gradients of one effective batch, over groups of at most `micro_batch` samples.
///
/// Each loss is the mean over all its tokens in the batch, so the result does not depend on `micro_batch`, as far as
/// no loss sets a sample against another of its group.
pub(crate) fn batch_gradients(
    decoder: &Decoder,
    compressor: &Compressor,
    stage: &Stage,
    samples: &[Sample],
    micro_batch: usize,
    seed: u64,
) -> Result<(Tally, NamedGradients)> {
    let mut rng = StdRng::seed_from_u64(mix(seed));
    let tracked = compressor.weights.tracked(|name| stage.learning_rates.of(name) > 0.0);
    let Stage { target_tokens, reconstructions, distractors, .. } = *stage;
    let plan = Plan { losses: &stage.losses, target_tokens, reconstructions, distractors };
    let groups: Vec<&[Sample]> = groups(samples, micro_batch);
    let mut totals = Totals::default();
    let mut plans: Vec<Vec<Planned>> = Vec::with_capacity(groups.len());
    for group in &groups {
        let planned = if stage.losses.reads() { plan.readings(group, &mut rng) } else { Vec::new() };
        totals.add(&planned, &stage.losses);
        plans.push(planned);
    }
    let text: usize = samples.iter().map(|sample| sample.context.len().saturating_sub(1)).sum();
    let (mut tally, mut gradients) = (Tally::default(), NamedGradients::default());
    let ratio = stage.ratios.get(rng.random_range(0..stage.ratios.len().max(1))).copied();
    for (index, (group, planned)) in groups.into_iter().zip(plans).enumerate() {
        let seed = mix(seed ^ mix(index as u64 + 1));
        let dropout = Some(seed);
        let encoding = Encoding { decoder, compressor, tracked: &tracked, stage, ratio, batch: micro_batch, dropout };
        let engines = encoding.engines(group, &mut rng)?;
        let (mut found, mut kept) = (Vec::new(), Vec::with_capacity(engines.len()));
        for (members, engine) in &engines {
            let (summaries, state) = engine.summaries(stage.losses.reads())?;
            found.push((members, summaries));
            kept.push(state);
        }
        let (summaries, rows) = joined(group.len(), found);
        let slope = match summaries.filter(|_| !planned.is_empty()) {
            Some(summaries) => {
                let (weights, losses, seed) = (&tracked, &stage.losses, mix(seed ^ 0x5eed));
                let objective = Objective { decoder, weights, losses, totals, batch: micro_batch, seed };
                Some(objective.run(group, &planned, &summaries, &rows, &mut tally, &mut gradients)?)
            }
            None => None,
        };
        if !stage.learning_rates.encodes() {
            continue;
        }
        for ((members, engine), state) in engines.iter().zip(kept) {
            let own = slope.as_ref().map(|slope| {
                let range = |&member: &usize| rows.get(member).cloned().unwrap_or_default();
                members.iter().map(|member| slope.clone().slice(s![range(member), ..])).collect::<Vec<_>>()
            });
            let next_token = stage.losses.next_token / text.max(1) as f64;
            engine.backward(state, own, next_token, &mut tally, &mut gradients)?;
        }
    }
    Ok((tally, gradients))
}

/// Samples in as few groups of at most `most` as can be, of nearly equal size. None is alone, so that each has another to be
/// set against, unless `most` is 1 or there is one sample only: an odd one joins a full group.
pub(crate) fn groups(samples: &[Sample], most: usize) -> Vec<&[Sample]> {
    let fewest = samples.len().div_ceil(most.max(1));
    let count = if most > 1 { fewest.min(samples.len() / 2) } else { fewest }.max(1);
    let mut rest = samples;
    let mut groups = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let (group, behind) = rest.split_at(rest.len().div_ceil(left));
        groups.push(group);
        rest = behind;
    }
    groups
}

/// The summary vectors of all samples in order, `[n, hidden]`, and the rows of each; `None` where there are none. They
/// come in groups, each with the indices of its samples.
pub(crate) fn joined(
    samples: usize,
    groups: Vec<(&Vec<usize>, Vec<Tensor<2>>)>,
) -> (Option<Tensor<2>>, Vec<Range<usize>>) {
    let mut own: Vec<Option<Tensor<2>>> = vec![None; samples];
    for (members, summaries) in groups {
        for (&member, rows) in members.iter().zip(summaries) {
            if let Some(slot) = own.get_mut(member) {
                *slot = Some(rows);
            }
        }
    }
    let (mut rows, mut next) = (Vec::with_capacity(samples), 0);
    for summary in &own {
        let n = summary.as_ref().map_or(0, |summary| summary.dims()[0]);
        rows.push(next..next + n);
        next += n;
    }
    let all: Vec<Tensor<2>> = own.into_iter().flatten().collect();
    ((!all.is_empty()).then(|| Tensor::cat(all, 0)), rows)
}

/// How a stage's texts are encoded.
pub(crate) struct Encoding<'a> {
    pub(crate) decoder: &'a Decoder,
    pub(crate) compressor: &'a Compressor,
    pub(crate) tracked: &'a Weights,
    pub(crate) stage: &'a Stage,
    pub(crate) ratio: Option<usize>,
    pub(crate) batch: usize,
    /// The seed of dropout, in training.
    pub(crate) dropout: Option<u64>,
}

/// Texts that are encoded together.
pub(crate) enum Engine<'a> {
    Recurrent(Recurrent<'a>),
    Independent(Independent<'a>),
}

impl<'a> Encoding<'a> {
    /// The samples' texts in groups that can be encoded together, each with the indices of its samples.
    pub(crate) fn engines(&self, samples: &'a [Sample], rng: &mut StdRng) -> Result<Vec<(Vec<usize>, Engine<'a>)>> {
        let Self { decoder, compressor, tracked, stage, ratio, batch, dropout } = *self;
        let weights = &compressor.weights;
        match &compressor.config.mode {
            Mode::Pooled(pooled) => {
                let index = pooled.ratios.iter().position(|&trained| Some(trained) == ratio);
                let Some(ratio) = ratio.zip(index) else {
                    let (found, expected) = (format!("{ratio:?}"), format!("one of the mode's {:?}", pooled.ratios));
                    return Err(Error::InvalidSetting { field: "ratio", found, expected });
                };
                let engine = Independent {
                    decoder,
                    weights,
                    tracked,
                    segment_length: pooled.segment_length,
                    windows: Windows { config: pooled, ratio, scale: compressor.config.embedding_scale },
                    texts: samples.iter().map(|sample| sample.context.as_slice()).collect(),
                    batch,
                    dropout,
                };
                Ok(vec![((0..samples.len()).collect(), Engine::Independent(engine))])
            }
            Mode::AutoCompressor(lengths) => {
                let mut order: Vec<usize> = (0..samples.len()).collect();
                let length = |&index: &usize| samples.get(index).map_or(0, |sample| sample.context.len());
                order.sort_by_key(length);
                let window =
                    Window { positions: decoder.config().max_position_embeddings, mode: &compressor.config.mode };
                let longest = window.longest_segment(stage, lengths);
                let groups = order.chunk_by(|a, b| length(a) == length(b));
                let engine = |members: &[usize]| {
                    let tokens = members.first().map_or(0, length);
                    let engine = Recurrent {
                        decoder,
                        weights,
                        tracked,
                        accumulate: lengths.accumulate_summary,
                        cut: Cut::random(tokens, stage.substeps, stage.segments_per_substep, longest, rng),
                        texts: members.iter().filter_map(|&i| Some(samples.get(i)?.context.as_slice())).collect(),
                        dropout,
                    };
                    (members.to_vec(), Engine::Recurrent(engine))
                };
                Ok(groups.map(engine).collect())
            }
        }
    }
}

impl Engine<'_> {
    /// Each text's summary vectors `[n, hidden]`, if `wanted`, and what the backward pass needs.
    pub(crate) fn summaries(&self, wanted: bool) -> Result<(Vec<Tensor<2>>, Vec<Tensor<3>>)> {
        match self {
            Self::Independent(engine) => Ok((if wanted { engine.summaries()? } else { Vec::new() }, Vec::new())),
            Self::Recurrent(engine) => {
                let segments = engine.summaries()?;
                let first = if engine.accumulate { 0 } else { segments.len().saturating_sub(1) };
                let softprompts: Tensor<3> = Tensor::cat(segments.iter().skip(first).cloned().collect(), 1);
                let own = |text: usize| softprompts.clone().slice(s![text..text + 1, .., ..]).squeeze_dim(0);
                Ok((if wanted { (0..engine.texts.len()).map(own).collect() } else { Vec::new() }, segments))
            }
        }
    }

    /// Adds the gradients of what `slopes`, one for each text's summary vectors, and the text's own loss say.
    fn backward(
        &self,
        state: Vec<Tensor<3>>,
        slopes: Option<Vec<Tensor<2>>>,
        next_token: f64,
        tally: &mut Tally,
        gradients: &mut NamedGradients,
    ) -> Result<()> {
        match self {
            Self::Independent(engine) => match slopes {
                Some(slopes) => engine.backward(&slopes, gradients),
                None => Ok(()),
            },
            Self::Recurrent(engine) => {
                let mut parts: Vec<Tensor<3>> = state.iter().map(Tensor::zeros_like).collect();
                if let Some(slopes) = slopes {
                    let all = Tensor::cat(slopes.into_iter().map(|slope| slope.unsqueeze::<3>()).collect(), 0);
                    let first = if engine.accumulate { 0 } else { parts.len().saturating_sub(1) };
                    let mut start = 0;
                    for part in parts.iter_mut().skip(first) {
                        let rows = part.dims()[1];
                        *part = all.clone().slice(s![.., start..start + rows, ..]);
                        start += rows;
                    }
                }
                engine.backward(&state, parts, next_token, tally, gradients)
            }
        }
    }
}

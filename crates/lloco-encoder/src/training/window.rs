//! What fits into the model's window, the positions that it was made for: a reading that is longer teaches nothing.

use std::path::Path;

use super::{Stage, losses::Kind, sample::CUE};
use crate::{EncoderConfig, Error, Mode, Result};

/// The model's window, and the encoder whose summaries take a part of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) positions: usize,
    pub(crate) mode: &'a Mode,
}

impl Window<'_> {
    /// Refuses a stage of which a reading is longer than the window, whatever the text says. Every stage is evaluated on
    /// reconstructions, and on continuations unless it overfits. `origin` is what errors call the curriculum.
    pub(crate) fn check(&self, index: usize, stage: &Stage, origin: &Path) -> Result<()> {
        let Stage { context, continuation, target_tokens, distractors, losses, .. } = stage;
        let vectors = self.vectors(stage);
        let among_others = vectors.saturating_mul(1 + distractors);
        let before = if losses.wants(Kind::Continuation) { among_others } else { vectors };
        let said = if *context >= target_tokens + CUE { target_tokens + CUE } else { *context.min(target_tokens) };
        let follows = stage.documents.is_none() || stage.follows();
        let only = |read: bool, positions: usize| if read { positions } else { 0 };
        for (name, value, what, positions) in [
            ("context", context, "a segment and its summary tokens", self.segment(stage)),
            (
                "context",
                context,
                "text and continuation, which `kl` reads",
                only(losses.kl > 0.0, context + continuation),
            ),
            ("target_tokens", target_tokens, "summary vectors and a reconstruction", vectors.saturating_add(1 + said)),
            (
                "continuation",
                continuation,
                "summary vectors and a continuation",
                only(follows, before.saturating_add(1 + continuation)),
            ),
            (
                "distractors",
                distractors,
                "summary vectors and an answer",
                only(losses.answer > 0.0, among_others.saturating_add(2)),
            ),
        ] {
            if positions > self.positions {
                let expected =
                    format!("less: {what} take {positions} positions, the model's window has {}", self.positions);
                let (path, field) = (origin.to_path_buf(), format!("stages[{index}].{name}"));
                return Err(Error::Curriculum { path, field, found: value.to_string(), expected });
            }
        }
        Ok(())
    }

    /// Tokens that a question and its answer may have together: behind summary vectors and, where `kl` reads it, behind
    /// the text of `tokens` tokens itself.
    pub(crate) fn room(&self, stage: &Stage, tokens: usize) -> usize {
        let summaries = self.vectors(stage).saturating_mul(1 + stage.distractors);
        let text = if stage.losses.kl > 0.0 { tokens } else { 0 };
        self.positions.saturating_sub(summaries.max(text))
    }

    /// Most tokens of a segment of random length; where segments are shorter on average, none is longer.
    pub(crate) fn longest_segment(&self, stage: &Stage, lengths: &EncoderConfig) -> usize {
        let summaries = segments(stage).saturating_mul(lengths.summary_length);
        let longest = self.positions.saturating_sub(summaries).max(lengths.segment_length);
        stage.longest_segment.unwrap_or(longest)
    }

    /// Most summary vectors of a text of this stage.
    fn vectors(&self, stage: &Stage) -> usize {
        match self.mode {
            // A ratio divides a segment's length, so that only the last window may be shorter.
            Mode::Pooled(_) => stage.context.div_ceil(stage.ratios.iter().copied().min().unwrap_or(1).max(1)),
            Mode::AutoCompressor(lengths) => {
                let kept = if lengths.accumulate_summary { segments(stage) } else { 1 };
                kept.saturating_mul(lengths.summary_length)
            }
        }
    }

    /// Most positions that a segment takes with the summaries before it and its summary tokens.
    fn segment(&self, stage: &Stage) -> usize {
        match self.mode {
            Mode::Pooled(pooled) => pooled.segment_length.min(stage.context),
            Mode::AutoCompressor(lengths) => {
                let most = stage.context.div_ceil(stage.substeps);
                // Cut evenly, the last takes what is left.
                let even = |part: usize| part - part / stage.segments_per_substep * (stage.segments_per_substep - 1);
                let longest =
                    self.longest_segment(stage, lengths).max(even(most)).max(even(stage.context / stage.substeps));
                let read = if lengths.accumulate_summary { segments(stage) } else { segments(stage).min(2) };
                longest.min(most).saturating_add(read.saturating_mul(lengths.summary_length))
            }
        }
    }
}

/// Segments of a text (`autocompressor` only).
fn segments(stage: &Stage) -> usize {
    stage.substeps.saturating_mul(stage.segments_per_substep)
}

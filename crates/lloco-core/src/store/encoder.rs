//! An encoder as plain data, and the keys of what it makes of a text.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::precision::Precision;
use crate::digest::{Digest, Hasher};

/// An encoder as the store knows it. Summaries of encoders that differ in any field never mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EncoderInfo {
    /// Stands for weights, tokenizer and configuration.
    pub fingerprint: String,
    /// Tokens in a full segment.
    pub segment_length: u32,
    /// Most summary vectors a segment gives.
    pub summary_length: u32,
    /// Width of a summary vector.
    pub hidden: u32,
    /// Whether the softprompt is all summaries (true) or only the last segment's (false).
    pub accumulate: bool,
    /// Whether a segment's summary depends on the segments before it.
    pub recurrent: bool,
    /// How summaries are stored.
    pub precision: Precision,
}

impl EncoderInfo {
    /// A recurrent, accumulating encoder whose summaries are stored as f16.
    #[must_use]
    pub fn new(fingerprint: impl Into<String>, segment_length: u32, summary_length: u32, hidden: u32) -> Self {
        Self {
            fingerprint: fingerprint.into(),
            segment_length,
            summary_length,
            hidden,
            accumulate: true,
            recurrent: true,
            precision: Precision::F16,
        }
    }

    /// Sets [`EncoderInfo::accumulate`].
    #[must_use]
    pub const fn accumulate(mut self, accumulate: bool) -> Self {
        self.accumulate = accumulate;
        self
    }

    /// Sets [`EncoderInfo::recurrent`].
    #[must_use]
    pub const fn recurrent(mut self, recurrent: bool) -> Self {
        self.recurrent = recurrent;
        self
    }

    /// Sets [`EncoderInfo::precision`].
    #[must_use]
    pub const fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The digest that stands for all fields.
    #[must_use]
    pub fn id(&self) -> Digest {
        let mut hasher = Hasher::labelled("lloco encoder 1");
        hasher.field(self.fingerprint.as_bytes());
        for number in [self.segment_length, self.summary_length, self.hidden] {
            hasher.number(number.into());
        }
        hasher.number(self.accumulate.into());
        hasher.number(self.recurrent.into());
        hasher.field(self.precision.name().as_bytes());
        hasher.finish()
    }

    /// The keys of a text's segments, each from the state before it and its token ids.
    pub(super) fn segment_keys(&self, segments: &[&[u32]]) -> Vec<Segment> {
        let id = self.id();
        let mut previous = None::<Digest>;
        let key = |tokens: &&[u32]| {
            let mut hasher = Hasher::labelled("lloco segment 1");
            hasher.update(id.bytes());
            hasher.update(previous.unwrap_or([0; 32].into()).bytes());
            tokens.iter().for_each(|token| hasher.update(&token.to_le_bytes()));
            let key = hasher.finish();
            let segment = Segment { key, previous, tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX) };
            previous = self.recurrent.then_some(key);
            segment
        };
        segments.iter().map(key).collect()
    }

    /// Whether the softprompt is the last segment's summary alone.
    pub(super) const fn keeps_last_only(&self) -> bool {
        self.recurrent && !self.accumulate
    }
}

impl fmt::Display for EncoderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, segment_length, summary_length, hidden, precision, .. } = self;
        let short: String = fingerprint.chars().take(16).collect();
        write!(f, "{short} ({segment_length} tokens to {summary_length} x {hidden}, {precision}")?;
        f.write_str(if self.accumulate { "" } else { ", last segment only" })?;
        f.write_str(if self.recurrent { ")" } else { ", independent segments)" })
    }
}

/// A segment of a text under an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Names the segment's summary.
    pub key: Digest,
    /// The segment whose state it continues.
    pub previous: Option<Digest>,
    /// Its length in tokens.
    pub tokens: u32,
}

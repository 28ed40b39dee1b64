//! Lengths of segments and summaries.

use std::{fs, path::Path};

use lloco_decoder::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::{Error, Layout, Result};

/// How documents are cut and summarised. Part of an encoder's fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Tokens a segment; a document's last may have fewer.
    pub segment_length: usize,
    /// Summary vectors a segment.
    pub summary_length: usize,
    /// Whether the softprompt grows by each segment's summary (`true`), or is replaced by it.
    pub accumulate_summary: bool,
}

impl EncoderConfig {
    pub(crate) fn layout(&self) -> Layout {
        let Self { segment_length, summary_length, accumulate_summary: accumulate } = *self;
        Layout { segment_length, summary_length, accumulate, recurrent: true }
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (field, value) in [("segment_length", self.segment_length), ("summary_length", self.summary_length)] {
            if value == 0 || value > 1 << 20 {
                let expected = "a length between 1 and 1048576".into();
                return Err(Error::InvalidSetting { field, found: value.to_string(), expected });
            }
        }
        Ok(())
    }

    /// Segments that a document of `tokens` tokens is cut into.
    pub fn segments(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.segment_length)
    }

    /// Rows of the softprompt of a document of `tokens` tokens.
    pub fn summary_vectors(&self, tokens: usize) -> usize {
        let segments = if self.accumulate_summary { self.segments(tokens) } else { self.segments(tokens).min(1) };
        segments * self.summary_length
    }
}

/// What a user may choose; what is left open comes from the checkpoint, else from the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncoderOptions {
    /// Tokens a segment; 1,536 if left open.
    pub segment_length: Option<usize>,
    /// Summary vectors a segment; the checkpoint's, else 50.
    pub summary_length: Option<usize>,
    /// Whether summaries accumulate; the checkpoint's choice, else yes.
    pub accumulate_summary: Option<bool>,
    /// Tokens a summary vector, for an encoder that was trained for several ratios; its first if left open.
    pub ratio: Option<usize>,
}

/// The keys that AutoCompressor adds to `config.json`.
#[derive(Default, Deserialize)]
struct CheckpointKeys {
    summary_length: Option<usize>,
    accumulate_summary: Option<bool>,
}

impl EncoderOptions {
    /// Settles every choice. `rows` is the number of summary embeddings that the checkpoint holds, if any.
    pub(crate) fn settle(&self, checkpoint: &Checkpoint, rows: Option<usize>) -> Result<EncoderConfig> {
        let keys = CheckpointKeys::read(checkpoint.path())?;
        let config = EncoderConfig {
            segment_length: self.segment_length.unwrap_or(1536),
            summary_length: self.summary_length.or(rows).or(keys.summary_length).unwrap_or(50),
            accumulate_summary: self.accumulate_summary.or(keys.accumulate_summary).unwrap_or(true),
        };
        config.check()?;
        if let Some(ratio) = self.ratio {
            let expected = "nothing: an AutoCompressor has a segment and a summary length".into();
            return Err(Error::InvalidSetting { field: "ratio", found: ratio.to_string(), expected });
        }
        match rows {
            Some(rows) if rows != config.summary_length => Err(Error::InvalidSetting {
                field: "summary_length",
                found: config.summary_length.to_string(),
                expected: format!(
                    "{} was trained with {rows} summary tokens (`embed_summary.weight`); leave the setting out",
                    checkpoint.path().display()
                ),
            }),
            _ => Ok(config),
        }
    }
}

impl EncoderOptions {
    /// Settles the choices that training has left.
    pub(crate) fn settle_trained(&self, trained: EncoderConfig) -> Result<EncoderConfig> {
        let fixed = |field: &'static str, found: Option<String>, expected: String| match found {
            Some(found) if found != expected => {
                Err(Error::InvalidSetting { field, found, expected: format!("{expected}, as trained") })
            }
            _ => Ok(()),
        };
        let text = |value: Option<usize>| value.map(|value| value.to_string());
        fixed("summary_length", text(self.summary_length), trained.summary_length.to_string())?;
        let accumulate = self.accumulate_summary.map(|value| value.to_string());
        fixed("accumulate_summary", accumulate, trained.accumulate_summary.to_string())?;
        fixed("ratio", text(self.ratio), "left out".into())?;
        let config = EncoderConfig { segment_length: self.segment_length.unwrap_or(trained.segment_length), ..trained };
        config.check()?;
        Ok(config)
    }
}

impl CheckpointKeys {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        if !path.exists() {
            return Ok(Self::default());
        }
        let json = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        serde_json::from_slice(&json).map_err(|e| Error::Malformed { path, detail: e.to_string() })
    }
}

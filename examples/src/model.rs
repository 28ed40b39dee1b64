//! Arguments that choose a language model, and how it compresses.

use std::sync::Arc;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use lloco_core::{Checkpoint, Decoder, Device, EncoderOptions, ModelSource, WeightType, device};

use crate::{Result, progress};

/// Which model, where to compute, in which float type.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A checkpoint directory, a .gguf file, or org/name on the hub [default: SmolLM2-135M-Instruct]
    #[arg(long, value_name = "DIR|ID")]
    pub model: Option<String>,

    /// cpu, or, where its feature is compiled in: cuda, wgpu, vulkan, metal, ndarray
    #[arg(long, default_value = "cpu")]
    pub device: String,

    /// Type of the model's weights in memory; int8 and q4 on the CPU only
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(["auto", "f32", "bf16", "int8", "q4"])
        .map(|name| match name.as_str() {
            "f32" => WeightType::F32,
            "bf16" => WeightType::Bf16,
            "int8" => WeightType::Int8,
            "q4" => WeightType::Q4,
            _ => WeightType::Auto,
        }))]
    pub weights: WeightType,
}

impl ModelArgs {
    /// The chosen model, or the default one.
    pub fn source(&self) -> ModelSource {
        self.model.as_deref().map_or_else(ModelSource::default_model, ModelSource::from)
    }

    /// The device to compute on.
    ///
    /// # Errors
    /// When it is unknown, or not compiled in.
    pub fn device(&self) -> Result<Device> {
        Ok(device(&self.device)?)
    }

    /// Fetches the model if need be, and loads it.
    ///
    /// # Errors
    /// When it cannot be had, or is damaged.
    pub fn load(&self) -> Result<(Checkpoint, Arc<Decoder>)> {
        let checkpoint = Checkpoint::open(progress::resolver().resolve(&self.source())?)?;
        let decoder = Decoder::load(&checkpoint, self.weights, &self.device()?)?;
        Ok((checkpoint, Arc::new(decoder)))
    }
}

/// Lengths of segments and summaries.
#[derive(Debug, Clone, Copy, Args)]
pub struct EncoderArgs {
    /// Tokens a segment [default: 1536]
    #[arg(long, value_name = "N")]
    segment_length: Option<usize>,

    /// Summary vectors a segment [default: the checkpoint's, or 50]
    #[arg(long, value_name = "N")]
    summary_length: Option<usize>,

    /// Keep only the last segment's summary vectors
    #[arg(long)]
    no_accumulate: bool,

    /// Tokens a summary vector, of those that the compressor was trained for [default: its first]
    #[arg(long, value_name = "N")]
    ratio: Option<usize>,
}

impl From<EncoderArgs> for EncoderOptions {
    fn from(args: EncoderArgs) -> Self {
        let EncoderArgs { segment_length, summary_length, no_accumulate, ratio } = args;
        Self { segment_length, summary_length, accumulate_summary: no_accumulate.then_some(false), ratio }
    }
}

//! Arguments that say how each token is chosen.

use clap::Args;
use lloco_core::Sampling;

/// Greedy unless a temperature is given.
#[derive(Debug, Clone, Copy, Args)]
pub struct SamplingArgs {
    /// Divides the scores; 0 always takes the best token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,

    /// Draw from the K best tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Draw from the best tokens whose probabilities reach P
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Makes tokens that were seen already less likely; 1 does nothing
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,

    /// Seed of the random draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl From<SamplingArgs> for Sampling {
    fn from(args: SamplingArgs) -> Self {
        Self::temperature(args.temperature, args.seed)
            .with_top_k(args.top_k)
            .with_top_p(args.top_p)
            .with_repetition_penalty(args.repetition_penalty)
    }
}

//! Training a compressor: a language model learns to write summary vectors, and to read them.
//!
//! A step reads documents without gradients and keeps their summaries. Then the model reads behind the summaries, and
//! each [loss](Losses) says how the summaries should change. Then the documents are read once more, piece by piece, and
//! what was said about a piece's summaries goes into the encoder's weights. Memory holds one piece, whatever the length
//! of a document.
//!
//! | file | question |
//! |---|---|
//! | [`curriculum`](Curriculum) | which stages are there, and which settings are possible? |
//! | [`corpus`](Corpus), `sampler`, [`sample`](Sample) | which piece of which document comes when? |
//! | `window` | what is longer than the model's window? |
//! | `start` | what does the text say before the first step? |
//! | `origin` | how does a run begin with a trained compressor? |
//! | `reading` | what does the model read behind summaries? |
//! | [`losses`](Losses), `score`, `objective` | what is minimised? |
//! | `recurrent`, `independent` | how do gradients go back through AutoCompressor, through Pooled? |
//! | `batch` | what does one effective batch say? |
//! | [`step`](CompressorStep) | which weights come of it? |
//! | [`trainer`](CompressorTrainer) | what is a run made of? |
//! | `run` | the loop |
//! | `durable`, `metrics` | how does a run survive a kill, and what does it leave? |
//! | [`evaluate`](Evaluation) | are summaries read, or is the text guessed? |

mod batch;
mod corpus;
mod curriculum;
mod durable;
mod evaluate;
mod independent;
mod losses;
mod metrics;
mod objective;
mod origin;
mod reading;
mod recurrent;
mod run;
mod sample;
mod sampler;
mod score;
mod start;
mod step;
#[cfg(test)]
mod tests;
mod trainer;
mod window;

pub use corpus::Corpus;
pub use curriculum::{Curriculum, LearningRates, OptimizerConfig, Stage};
pub use evaluate::{Evaluation, Score};
pub use losses::Losses;
pub use sample::Sample;
pub use sampler::Wording;
pub use step::CompressorStep;
pub use trainer::{CompressorTrainer, TrainingEvent, TrainingOutcome};

//! Finetuning an adapter on questions and answers behind summary vectors.
//!
//! The input is `[summary vectors ; prompt ; answer]` and the loss is the cross entropy of the answer's tokens, its
//! end token included; where an example has a [teacher](Example::teacher), also the divergence from it. Only the adapter
//! learns.
//!
//! | file | question |
//! |---|---|
//! | [`config`](TrainConfig) | which settings are there, and which are possible? |
//! | [`example`](Example) | what is one example? |
//! | `order`, `distractors` | which examples come when, beside which other documents? |
//! | `micro_batch` | how do unequal examples become one tensor? |
//! | `loss` | what is minimised? |
//! | [`teacher`](Teacher), `distil` | how is the reading of the text itself learned beside the answer? |
//! | `gradients` | what does one effective batch say about the adapter? |
//! | `dropout`, `schedule`, `optimizer` | the parts of a step |
//! | [`trainer`](Trainer) | what is a run made of? |
//! | `step` | what comes of one batch? |
//! | `run` | the loop, and early stopping |
//! | `progress` | which adapter has done best on held-out examples? |
//! | [`report`](StepReport) | what does a run tell? |
//! | `durable` | how does a run survive a kill? |

mod config;
mod distil;
mod distractors;
mod dropout;
mod durable;
mod example;
mod gradients;
mod loss;
mod micro_batch;
mod optimizer;
mod order;
mod progress;
mod report;
mod run;
mod schedule;
mod step;
mod teacher;
mod trainer;

pub use config::{Schedule, TrainConfig};
pub use dropout::Dropout;
pub use example::{Example, SummaryVectors};
pub use gradients::{BatchGradients, Evaluation, NamedGradients, batch_gradients, evaluate};
pub use loss::{Scored, cross_entropy};
pub use optimizer::AdamW;
pub use report::{Event, Outcome, StepReport};
pub use teacher::{RowLosses, Teacher};
pub use trainer::Trainer;

//! What the example programs share: arguments, progress, output. The programs themselves are in `examples/*.rs`.
//!
//! | file | what it holds |
//! |---|---|
//! | [`program`] | from arguments to an exit code |
//! | [`output`] | text for people, one JSON line for machines |
//! | [`model`] | `--model`, `--device`, `--weights`, lengths of segments and summaries |
//! | [`library`] | `--store` and what else opens a library |
//! | [`prompt`] | `--prompt`, `--token-ids`, `--context`, `--chat` |
//! | [`sampling`] | `--temperature` and its like |
//! | [`answer`] | an answer, its sources and its cost, as text and as JSON |
//! | [`control`](mod@control) | the control table, as text and as JSON |
//! | [`tokens`] | token ids from files |
//! | [`arithmetic`](mod@arithmetic) | a training's operations beside the device's product rate |
//! | [`progress`] | bars on the standard error stream |
//! | [`interrupt`] | the first Ctrl-C stops in good order |
//! | [`memory`] | the process's peak memory |

pub mod answer;
pub mod arithmetic;
pub mod control;
pub mod interrupt;
pub mod library;
pub mod memory;
pub mod model;
pub mod output;
pub mod program;
pub mod progress;
pub mod prompt;
pub mod sampling;
pub mod tokens;

pub use arithmetic::{arithmetic, product_rate};
pub use control::control;
pub use library::LibraryArgs;
pub use model::{EncoderArgs, ModelArgs};
pub use output::Output;
pub use program::{Result, main};
pub use prompt::PromptArgs;
pub use sampling::SamplingArgs;

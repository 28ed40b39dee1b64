//! Scores for answers: the metrics of SCROLLS, SQuAD, HotpotQA and QuALITY, and how sure a mean is.
//!
//! All scores are per cent. Where a question has several references, the best one counts.
//!
//! ```
//! use lloco_core::eval::{Interval, Scores};
//!
//! let scores = Scores::of("The roof, in May.", &["the roof", "roof and plaster"]);
//! assert!((scores.f1 - 50.0).abs() < 1e-9); // "roof" against "roof in may"
//!
//! let f1 = Interval::of_mean(&[scores.f1, 100.0, 0.0], 0).expect("three values");
//! assert!(f1.low <= f1.value && f1.value <= f1.high);
//! ```
//!
//! | wanted | here |
//! |---|---|
//! | every metric of one answer | [`Scores::of`] |
//! | the metric that belongs to a data set | [`Task`], [`Metric::score`] |
//! | mean over a data set with a 95 % interval | [`Interval`] |
//! | the prompts of the paper's data sets, or your own | [`Tasks`] |
//! | whether summaries are read or answers guessed | [`Lloco::evaluate`](crate::Lloco::evaluate), [`ControlTable`] |
//!
//! # Agreement with the Python originals
//!
//! Token F1 and exact match equal the SQuAD script's, ROUGE equals google's `rouge_score` with its Porter stemmer,
//! to rounding. One difference is left: where `a`, `an` or `the` touches a combining vowel sign or a circled letter,
//! Python drops the article and this module keeps it.

mod answer;
mod control;
mod desk;
mod interval;
mod rouge;
mod shape;
mod stem;
mod table;
mod task;

use std::path::PathBuf;

use serde::Serialize;

pub(crate) use answer::words;
pub use control::{Context, EvaluateConfig};
pub use interval::Interval;
pub use shape::SummaryShape;
pub use table::{ControlRow, ControlTable, Measure, ScoredAnswer};
pub use task::{Metric, Task, Tasks};

/// What can be wrong with a file of tasks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not JSON of the expected shape.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what was expected.
        source: serde_json::Error,
    },
    /// A setting of an evaluation that leaves nothing to do.
    #[error("{field} is {found}; expected {expected}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A prompt does not say where the question goes.
    #[error("the prompt of task `{task}` must contain `{{question}}` once, and has it {found} times")]
    Placeholder {
        /// The task.
        task: String,
        /// How often the placeholder stands in its prompt.
        found: usize,
    },
    /// There is no task of this name.
    #[error("no task `{name}`; known are {known}")]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}

/// Every metric of one answer, in per cent; or the mean over many answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Harmonic mean of precision and recall over words, after SQuAD's normalisation.
    pub f1: f64,
    /// 100 where the normalised answer equals a normalised reference, else 0.
    pub exact_match: f64,
    /// ROUGE-1, F-measure.
    pub rouge1: f64,
    /// ROUGE-2, F-measure.
    pub rouge2: f64,
    /// ROUGE-L, F-measure.
    pub rouge_l: f64,
}

impl Scores {
    /// Scores an answer against its references; each metric takes its own best reference. Without references all
    /// scores are 0.
    pub fn of<R: AsRef<str>>(prediction: &str, references: &[R]) -> Self {
        let words = answer::words(prediction);
        let tokens = rouge::tokens(prediction);
        references.iter().map(AsRef::as_ref).fold(Self::default(), |best, reference| {
            let reference_words = answer::words(reference);
            let reference_tokens = rouge::tokens(reference);
            Self {
                f1: best.f1.max(answer::f1(&words, &reference_words)),
                exact_match: best.exact_match.max(answer::exact_match(&words, &reference_words)),
                rouge1: best.rouge1.max(rouge::rouge_n(1, &tokens, &reference_tokens)),
                rouge2: best.rouge2.max(rouge::rouge_n(2, &tokens, &reference_tokens)),
                rouge_l: best.rouge_l.max(rouge::rouge_l(&tokens, &reference_tokens)),
            }
        })
    }

    /// The mean of each metric; all 0 for no scores.
    pub fn mean<'a>(scores: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut sum, mut count) = (Self::default(), 0.0_f64);
        for one in scores {
            count += 1.0;
            sum.f1 += one.f1;
            sum.exact_match += one.exact_match;
            sum.rouge1 += one.rouge1;
            sum.rouge2 += one.rouge2;
            sum.rouge_l += one.rouge_l;
        }
        let count = count.max(1.0);
        Self {
            f1: sum.f1 / count,
            exact_match: sum.exact_match / count,
            rouge1: sum.rouge1 / count,
            rouge2: sum.rouge2 / count,
            rouge_l: sum.rouge_l / count,
        }
    }

    /// The geometric mean of the three ROUGE scores. SCROLLS reports it of the [`mean`](Self::mean) over a data set,
    /// which is not the mean of the geometric means.
    pub fn rouge_geometric_mean(&self) -> f64 {
        (self.rouge1 * self.rouge2 * self.rouge_l).cbrt()
    }
}

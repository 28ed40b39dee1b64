//! The control table: how well the same questions are answered from different things to read.

use std::fmt;

use serde::Serialize;

use super::{Context, Interval, Scores, SummaryShape};

/// Answers to the same questions behind different contexts, each with and without the group's adapter.
///
/// A score says something about memory only beside the others: what is as good behind another document's summaries was
/// not read off the summaries. [`Display`](fmt::Display) gives it as a Markdown table.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ControlTable {
    /// The group.
    pub group: String,
    /// Version of the adapter; without one there are no rows with adapter.
    pub adapter: Option<u32>,
    /// Questions asked.
    pub questions: usize,
    /// Documents that they are about.
    pub documents: usize,
    /// Seeds the choice of questions, of other documents, and the intervals.
    pub seed: u64,
    /// The rows.
    pub rows: Vec<ControlRow>,
    /// What the summaries look like as vectors.
    pub summaries: SummaryShape,
}

/// All questions behind one kind of context.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ControlRow {
    /// What stood before the question.
    pub context: Context,
    /// Whether the group's adapter read it.
    pub adapter: bool,
    /// Positions that the context took, on average.
    pub positions: f64,
    /// The answers, in the same order in each row.
    pub answers: Vec<ScoredAnswer>,
}

/// One answer and its scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScoredAnswer {
    /// Id of the question.
    pub question: String,
    /// What the model said.
    pub text: String,
    /// How well that agrees with the references.
    pub scores: Scores,
    /// `-ln p` of the first reference, end token included, summed over its tokens.
    pub nll: f64,
    /// The tokens of the first reference.
    pub tokens: usize,
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// Token F1.
    F1,
    /// Exact match.
    ExactMatch,
    /// ROUGE-1.
    Rouge1,
    /// ROUGE-2.
    Rouge2,
    /// ROUGE-L.
    RougeL,
    /// Geometric mean of the three mean ROUGE scores.
    Rouge,
    /// `-ln p` of a reference token, in nats: lower is better.
    Nll,
}

impl Measure {
    /// All columns, in order.
    pub const ALL: [Self; 7] =
        [Self::F1, Self::ExactMatch, Self::Rouge1, Self::Rouge2, Self::RougeL, Self::Rouge, Self::Nll];

    /// The column's heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::ExactMatch => "EM",
            Self::Rouge1 => "ROUGE-1",
            Self::Rouge2 => "ROUGE-2",
            Self::RougeL => "ROUGE-L",
            Self::Rouge => "ROUGE",
            Self::Nll => "NLL",
        }
    }

    /// The mean over some answers.
    fn of<'a>(self, answers: impl Iterator<Item = &'a ScoredAnswer> + Clone) -> f64 {
        if self == Self::Nll {
            let tokens: usize = answers.clone().map(|answer| answer.tokens).sum();
            return answers.map(|answer| answer.nll).sum::<f64>() / tokens.max(1) as f64;
        }
        let mean = Scores::mean(answers.map(|answer| &answer.scores));
        match self {
            Self::F1 => mean.f1,
            Self::ExactMatch => mean.exact_match,
            Self::Rouge1 => mean.rouge1,
            Self::Rouge2 => mean.rouge2,
            Self::RougeL => mean.rouge_l,
            Self::Rouge | Self::Nll => mean.rouge_geometric_mean(),
        }
    }
}

impl ControlTable {
    /// The row of a context.
    pub fn row(&self, context: Context, adapter: bool) -> Option<&ControlRow> {
        self.rows.iter().find(|row| row.context == context && row.adapter == adapter)
    }

    /// A cell: the mean over a row's questions, with its 95 % interval. `None` for a row without answers.
    pub fn cell(&self, row: &ControlRow, measure: Measure) -> Option<Interval> {
        Interval::of(&row.answers, self.seed, |sample| measure.of(sample.iter().copied()))
    }

    /// By how much `row` is above `other` on the same questions, with its 95 % interval: where that excludes 0, the
    /// difference is hardly chance. `None` for rows without answers.
    pub fn difference(&self, row: &ControlRow, other: &ControlRow, measure: Measure) -> Option<Interval> {
        let pairs: Vec<_> = row.answers.iter().zip(&other.answers).collect();
        Interval::of(&pairs, self.seed, |sample| {
            measure.of(sample.iter().map(|pair| pair.0)) - measure.of(sample.iter().map(|pair| pair.1))
        })
    }

    /// What makes summaries worth having: compressed against shuffled and against as many positions of text, with the
    /// adapter if there is one; and passages with summaries before them against passages alone. Each with a name, the difference in F1 and the difference in NLL.
    pub fn verdicts(&self) -> Vec<(String, Interval, Interval)> {
        let adapter = self.adapter.is_some();
        let pairs = [
            (Context::Compressed, Context::Shuffled, adapter),
            (Context::Compressed, Context::Nothing, adapter),
            (Context::Compressed, Context::Truncated, adapter),
            (Context::Compressed, Context::Retrieved, adapter),
            (Context::Compressed, Context::Truncated, false),
            (Context::Both, Context::Retrieved, adapter),
        ];
        let mut verdicts: Vec<(String, Interval, Interval)> = Vec::new();
        for (context, other, other_adapter) in pairs {
            let (Some(row), Some(other)) = (self.row(context, adapter), self.row(other, other_adapter)) else {
                continue;
            };
            let name = format!("{row} - {other}");
            let found = [Measure::F1, Measure::Nll].map(|measure| self.difference(row, other, measure));
            if let [Some(f1), Some(nll)] = found
                && verdicts.iter().all(|(known, ..)| *known != name)
            {
                verdicts.push((name, f1, nll));
            }
        }
        verdicts
    }
}

impl fmt::Display for ControlRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.context, if self.adapter { " + adapter" } else { "" })
    }
}

impl fmt::Display for ControlTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| context | positions |")?;
        Measure::ALL.iter().try_for_each(|measure| write!(f, " {} |", measure.name()))?;
        write!(f, "\n|---|---:|")?;
        Measure::ALL.iter().try_for_each(|_| write!(f, "---:|"))?;
        for row in &self.rows {
            write!(f, "\n| {row} | {:.0} |", row.positions)?;
            for measure in Measure::ALL {
                let digits = if measure == Measure::Nll { 2 } else { 1 };
                match self.cell(row, measure) {
                    Some(cell) => write!(f, " {} |", Digits(cell, digits))?,
                    None => write!(f, " |")?,
                }
            }
        }
        let verdicts = self.verdicts();
        if !verdicts.is_empty() {
            write!(f, "\n\n| difference | F1 | NLL |\n|---|---:|---:|")?;
        }
        for (name, f1, nll) in verdicts {
            write!(f, "\n| {name} | {} | {} |", Digits(f1, 1), Digits(nll, 2))?;
        }
        let SummaryShape { vectors, effective_rank, cosine, norm_ratio } = self.summaries;
        write!(
            f,
            "\n\n{} questions on {} documents. Summaries: {vectors:.0} vectors, effective rank {effective_rank:.1}, mean \
             cosine of two rows {cosine:.2}, norm {norm_ratio:.2} times that of the embeddings.",
            self.questions, self.documents
        )
    }
}

/// An interval with so many digits.
struct Digits(Interval, usize);

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Interval { value, low, high }, digits) = *self;
        write!(f, "{value:.digits$} [{low:.digits$}, {high:.digits$}]")
    }
}

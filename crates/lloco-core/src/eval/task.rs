//! What a data set asks for: its prompt, its metric, and how long an answer may be.

use std::path::Path;

use serde::Deserialize;

use super::{Error, Scores};

const BUILT_IN: &str = include_str!("prompts.json");
const PLACEHOLDER: &str = "{question}";

/// The metric that a data set is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// Token F1.
    F1,
    /// Token F1 of what stands before the first full stop.
    FirstSentenceF1,
    /// Exact match after normalisation.
    ExactMatch,
    /// Geometric mean of ROUGE-1, ROUGE-2 and ROUGE-L.
    Rouge,
    /// The first character is the letter of the right option.
    Letter,
}

impl Metric {
    /// The score of one answer in per cent; the best reference counts.
    ///
    /// SCROLLS reports [`Metric::Rouge`] over a data set as the geometric mean of the mean scores: see
    /// [`Scores::rouge_geometric_mean`].
    pub fn score<R: AsRef<str>>(self, prediction: &str, references: &[R]) -> f64 {
        match self {
            Self::F1 => Scores::of(prediction, references).f1,
            Self::FirstSentenceF1 => {
                let first = prediction.split('.').next().unwrap_or_default();
                Scores::of(first, references).f1
            }
            Self::ExactMatch => Scores::of(prediction, references).exact_match,
            Self::Rouge => Scores::of(prediction, references).rouge_geometric_mean(),
            Self::Letter => {
                let letter = prediction.chars().next();
                let right = references.iter().any(|right| letter.is_some() && right.as_ref().chars().next() == letter);
                if right { 100.0 } else { 0.0 }
            }
        }
    }
}

/// How to ask the questions of one data set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Task {
    /// As in the file of tasks.
    pub name: String,
    /// What follows the document, with `{question}` where the question goes. Published adapters expect the wording
    /// that they were trained with.
    pub prompt: String,
    /// How answers are scored.
    pub metric: Metric,
    /// The longest answer, in tokens.
    pub max_new_tokens: usize,
}

impl Task {
    /// The prompt of one question; the document, or its summary vectors, go before it.
    pub fn prompt(&self, question: &str) -> String {
        self.prompt.replacen(PLACEHOLDER, question, 1)
    }
}

/// A file of tasks: a JSON array of [`Task`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tasks(Vec<Task>);

impl Tasks {
    /// The tasks of the paper, in this project's own wording, and `short_answer` for documents of your own.
    ///
    /// # Errors
    /// None with the file as released.
    pub fn built_in() -> Result<Self, Error> {
        Self::parse(BUILT_IN, Path::new("prompts.json"))
    }

    /// Reads a file of your own.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Malformed`] with the file named; [`Error::Placeholder`] for a prompt without
    /// `{question}`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let json = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::parse(&json, path)
    }

    /// The task of this name.
    ///
    /// # Errors
    /// [`Error::UnknownTask`] with the names there are.
    pub fn get(&self, name: &str) -> Result<&Task, Error> {
        self.0.iter().find(|task| task.name == name).ok_or_else(|| Error::UnknownTask {
            name: name.to_owned(),
            known: self.0.iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// All tasks, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.0.iter()
    }

    fn parse(json: &str, path: &Path) -> Result<Self, Error> {
        let tasks: Vec<Task> =
            serde_json::from_str(json).map_err(|source| Error::Malformed { path: path.to_path_buf(), source })?;
        for task in &tasks {
            let found = task.prompt.matches(PLACEHOLDER).count();
            if found != 1 {
                return Err(Error::Placeholder { task: task.name.clone(), found });
            }
        }
        Ok(Self(tasks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_tasks_are_complete() {
        let tasks = Tasks::built_in().unwrap();
        let metric = |name: &str| tasks.get(name).unwrap().metric;
        assert_eq!(metric("qasper"), Metric::F1);
        assert_eq!(metric("narrative_qa"), Metric::F1);
        assert_eq!(metric("qmsum"), Metric::Rouge);
        assert_eq!(metric("hotpot_qa"), Metric::FirstSentenceF1);
        assert_eq!(metric("quality"), Metric::Letter);
        assert_eq!(tasks.get("qmsum").unwrap().max_new_tokens, 96);
        assert!(tasks.iter().all(|task| task.prompt("Why?").contains("Why?")));
    }

    #[test]
    fn an_unknown_task_names_the_known_ones() {
        let message = Tasks::built_in().unwrap().get("squad").unwrap_err().to_string();
        assert!(message.contains("`squad`") && message.contains("qasper"), "{message}");
    }

    #[test]
    fn a_prompt_must_hold_the_question() {
        let json = r#"[{"name":"x","prompt":"Answer.","metric":"f1","max_new_tokens":5}]"#;
        assert!(matches!(Tasks::parse(json, Path::new("t.json")), Err(Error::Placeholder { found: 0, .. })));
    }

    #[test]
    fn bad_files_are_named() {
        let missing = Tasks::from_file("no/such/tasks.json").unwrap_err();
        assert!(missing.to_string().contains("tasks.json"), "{missing}");
        let json = r#"[{"name":"x","prompt":"{question}","metric":"f2","max_new_tokens":5}]"#;
        let error = Tasks::parse(json, Path::new("t.json")).unwrap_err().to_string();
        assert!(error.contains("t.json") && error.contains("f2"), "{error}");
    }

    #[test]
    fn letters_are_compared_without_stripping() {
        assert_eq!(Metric::Letter.score("B. The lamp", &["B"]), 100.0);
        assert_eq!(Metric::Letter.score(" B", &["B"]), 0.0);
        assert_eq!(Metric::Letter.score("b", &["B"]), 0.0);
        assert_eq!(Metric::Letter.score("", &[""]), 0.0);
    }

    #[test]
    fn only_the_first_sentence_counts_for_hotpot_qa() {
        assert_eq!(Metric::FirstSentenceF1.score("Oslo. It is in Norway.", &["Oslo"]), 100.0);
        assert!(Metric::F1.score("Oslo. It is in Norway.", &["Oslo"]) < 100.0);
    }
}

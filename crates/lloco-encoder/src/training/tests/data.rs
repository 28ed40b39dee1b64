//! Data for the samplers of the tests.

use std::{fs, path::Path};

use crate::{Corpus, Result, Wording};

/// A byte, a token.
pub(super) struct Bytes;

impl Wording for Bytes {
    fn text(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(|byte| u32::from(byte) % 96).collect())
    }

    fn question(&self, question: &str) -> Result<Vec<u32>> {
        self.text(question)
    }

    fn answer(&self, answer: &str) -> Result<Vec<u32>> {
        self.text(answer)
    }
}

/// Documents of a text, each with questions and their answers.
pub(super) fn corpus(dir: &Path, documents: &[(&str, &[(&str, &str)])]) -> Corpus {
    let line = |(text, questions): &(&str, &[(&str, &str)])| {
        let asked =
            questions.iter().map(|(question, answer)| serde_json::json!({"question": question, "answers": [answer]}));
        serde_json::json!({"text": text, "questions": asked.collect::<Vec<_>>()}).to_string() + "\n"
    };
    let path = dir.join("data.jsonl");
    fs::write(&path, documents.iter().map(line).collect::<String>()).unwrap();
    Corpus::open(&[path]).unwrap()
}

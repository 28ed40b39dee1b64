//! Documents with questions: JSON Lines in and out, and a generator of long ones.
//!
//! One document a line:
//!
//! ```json
//! {"id":"log","title":"A log","text":"...","questions":[{"id":"log-1","question":"Who kept it?","answers":["Ilves"]}]}
//! ```
//!
//! - `id` is unique in its file. `title` and `questions` may be missing.
//! - `text` may be missing: it is then read from `<id>.txt` beside the JSONL file.
//! - `answers` are wordings of the same answer; the first is used for finetuning, any of them counts in evaluation.
//! - A question may have `documents`, the ids of all documents that it is about, in the order in which they are read;
//!   without them it is about its own line's document.
//! - Other fields are ignored, blank lines skipped.
//!
//! A line may also be a single question about documents that are elsewhere, in the file or in a library:
//!
//! ```json
//! {"document":"log","question":"Who kept it?","answers":["Ilves"],"kind":"written","passage":[0,14]}
//! ```
//!
//! with `documents` in the place of `document` for several. `kind` says where the question comes from, `passage` which
//! bytes of the (first) document's text it is about; both may be missing. [Self-study](crate::Lloco::self_study) writes
//! such lines.
//!
//! ```
//! use lloco_core::dataset::{self, Reader};
//!
//! let line = r#"{"id":"log","text":"Kept by Ilves.","questions":[{"question":"Who kept it?","answers":["Ilves"]}]}"#;
//! for document in Reader::new(line.as_bytes(), "log.jsonl") {
//!     let document = document?;
//!     assert_eq!(document.questions[0].id, "log-1");
//! }
//! # Ok::<(), dataset::Error>(())
//! ```

mod archive;
mod choice;
mod reader;

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use archive::archive;
pub use choice::held_out;
pub use reader::Reader;

/// A document and the questions asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QaDocument {
    /// Unique in its data set.
    pub id: String,
    /// For people; may be empty.
    pub title: String,
    /// The whole text; empty where only questions about the document were read.
    pub text: String,
    /// May be empty.
    pub questions: Vec<Question>,
}

/// A question and the answers that count as right.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Question {
    /// Document id and a number unless the data say otherwise.
    pub id: String,
    /// The question as a person asks it.
    pub question: String,
    /// At least one; several are wordings of the same answer.
    pub answers: Vec<String>,
    /// Ids of the documents that it is about, in the order in which they are read; none stands for the document that
    /// holds the question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
    /// Where it comes from; blank for one that a person asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The first byte of the first document's text that it is about, and the byte behind the last, if it is about a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passage: Option<(usize, usize)>,
}

impl Question {
    /// A question about the document that holds it, and its answer.
    pub fn new(id: impl Into<String>, question: impl Into<String>, answer: impl Into<String>) -> Self {
        let (id, question, answers) = (id.into(), question.into(), vec![answer.into()]);
        Self { id, question, answers, ..Self::default() }
    }

    /// Makes it a question about these documents.
    #[must_use]
    pub fn about<S: Into<String>>(mut self, documents: impl IntoIterator<Item = S>) -> Self {
        self.documents = documents.into_iter().map(Into::into).collect();
        self
    }
}

/// What can be wrong with a data set. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is no document in the file.
    #[error("{}: no document; expected one JSON object a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not JSON, or a field is missing or of another type.
    #[error("{}, line {line}, column {column}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The byte of the line at which reading stopped.
        column: usize,
        /// What was expected.
        reason: String,
    },
    /// A field that must say something is blank.
    #[error("{}, line {line}: the field `{field}` is blank in document `{id}`", path.display())]
    Blank {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The document; blank when the id itself is.
        id: String,
        /// The field's name.
        field: &'static str,
    },
    /// A question has no answer.
    #[error("{}, line {line}: the question `{question}` has no answer; add one or drop the question", path.display())]
    NoAnswer {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The question.
        question: String,
    },
    /// A question names one of its documents twice.
    #[error("{}, line {line}: the question `{question}` names document `{id}` twice", path.display())]
    RepeatedDocument {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The question.
        question: String,
        /// The document.
        id: String,
    },
    /// Two lines carry the same document id.
    #[error("{}, line {line}: document `{id}` stands on line {first} already; ids must be unique", path.display())]
    DuplicateDocument {
        /// The file.
        path: PathBuf,
        /// The second line with this id.
        line: usize,
        /// The first line with this id.
        first: usize,
        /// The id.
        id: String,
    },
    /// A line has no `text`, and the text file that belongs to its id cannot be read.
    #[error("{}, line {line}: document `{id}` has no field `text`, and {} cannot be read: {source}", path.display(), file.display())]
    Text {
        /// The JSONL file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The document.
        id: String,
        /// The text file that was looked for.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Reads a whole data set, and brings the questions that stand on lines of their own to their (first) document.
/// [`Reader`] reads one line at a time.
///
/// # Errors
/// The first error of the file, see [`enum@Error`].
pub fn read(path: impl AsRef<Path>) -> Result<Vec<QaDocument>, Error> {
    let mut documents: Vec<QaDocument> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for document in Reader::open(path)? {
        let mut document = document?;
        match places.get(&document.id).and_then(|place| documents.get_mut(*place)) {
            Some(known) => {
                known.questions.append(&mut document.questions);
                if known.text.is_empty() {
                    (known.text, known.title) = (document.text, document.title);
                }
            }
            None => {
                places.insert(document.id.clone(), documents.len());
                documents.push(document);
            }
        }
    }
    Ok(documents)
}

/// Writes documents as JSON Lines, whole or not at all: to a temporary file beside `path`, which then takes its place.
///
/// # Errors
/// [`Error::Io`] when the directory cannot be written to or the disk is full.
pub fn write<'a>(path: impl AsRef<Path>, documents: impl IntoIterator<Item = &'a QaDocument>) -> Result<(), Error> {
    let path = path.as_ref();
    let failed = |source| Error::Io { path: path.to_path_buf(), source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut out = std::io::BufWriter::new(file);
    write_to(&mut out, documents).map_err(failed)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes documents line by line; the questions of one without text get lines of their own.
pub(crate) fn write_to<'a>(
    out: &mut impl Write,
    documents: impl IntoIterator<Item = &'a QaDocument>,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        document: Option<&'a str>,
        #[serde(flatten)]
        question: &'a Question,
    }
    for document in documents {
        if !document.text.is_empty() {
            serde_json::to_writer(&mut *out, document)?;
            out.write_all(b"\n")?;
            continue;
        }
        for question in &document.questions {
            let document = question.documents.is_empty().then_some(document.id.as_str());
            serde_json::to_writer(&mut *out, &Line { document, question })?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

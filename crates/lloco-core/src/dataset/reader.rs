//! JSON Lines to documents, one line at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Error, QaDocument, Question};

/// An iterator over the documents of a JSON Lines source; one line is in memory at a time. A question on a line of its own
/// comes as a document without text.
///
/// After a bad line the next line can still be read; after a failure to read nothing more comes.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    path: PathBuf,
    line: usize,
    seen: HashMap<String, usize>,
    found: bool,
    ended: bool,
}

#[derive(Deserialize)]
struct DocumentLine {
    id: String,
    #[serde(default)]
    title: String,
    text: Option<String>,
    #[serde(default)]
    questions: Vec<QuestionLine>,
}

#[derive(Deserialize)]
struct QuestionLine {
    id: Option<String>,
    question: String,
    answers: Vec<String>,
    document: Option<String>,
    #[serde(default)]
    documents: Vec<String>,
    #[serde(default)]
    kind: String,
    passage: Option<(usize, usize)>,
}

/// What tells a question's line from a document's.
#[derive(Deserialize)]
struct Probe {
    question: Option<IgnoredAny>,
}

impl Reader<BufReader<File>> {
    /// Opens a JSON Lines file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Ok(Self::new(BufReader::new(file), path))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from memory or any other source. `path` names it in errors, and its directory is where the text files of
    /// lines without a `text` are looked for.
    pub fn new(input: R, path: impl Into<PathBuf>) -> Self {
        Self { input, path: path.into(), line: 0, seen: HashMap::new(), found: false, ended: false }
    }

    /// The next line that is not blank, or nothing at the end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let mut bytes = Vec::new();
            let read = self.input.read_until(b'\n', &mut bytes);
            if read.map_err(|source| Error::Io { path: self.path.clone(), source })? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if let (1, Some(rest)) = (self.line, bytes.strip_prefix(b"\xef\xbb\xbf")) {
                bytes = rest.to_vec(); // a byte order mark
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<QaDocument, Error> {
        // A line with a question of its own is no document.
        if serde_json::from_slice::<Probe>(bytes).is_ok_and(|line| line.question.is_some()) {
            return self.single(bytes);
        }
        let (path, line) = (&self.path, self.line);
        let DocumentLine { id, title, text, questions } = self.json(bytes)?;
        self.filled(&id, &id, "id")?;
        let questions = questions
            .into_iter()
            .enumerate()
            .map(|(index, question)| self.question(question, &id, index + 1))
            .collect::<Result<Vec<_>, _>>()?;
        let text = match text {
            Some(text) => text,
            None => self.text_file(&id)?,
        };
        self.filled(&text, &id, "text")?;
        match self.seen.entry(id.clone()) {
            Entry::Occupied(first) => {
                Err(Error::DuplicateDocument { path: path.clone(), line, first: *first.get(), id })
            }
            Entry::Vacant(free) => {
                free.insert(line);
                Ok(QaDocument { id, title, text, questions })
            }
        }
    }

    /// A question on a line of its own, as a document without text.
    fn single(&self, bytes: &[u8]) -> Result<QaDocument, Error> {
        let question: QuestionLine = self.json(bytes)?;
        let Some(id) = question.documents.first().or(question.document.as_ref()).cloned() else {
            return Err(self.malformed(bytes.len(), "missing field `document`"));
        };
        self.filled(&id, &id, "document")?;
        let mut question = self.question(question, &id, self.line)?;
        if question.documents == [id.as_str()] {
            question.documents.clear();
        }
        Ok(QaDocument { id, title: String::new(), text: String::new(), questions: vec![question] })
    }

    /// A question of document `id`; `number` is its own if it has none.
    fn question(&self, line: QuestionLine, id: &str, number: usize) -> Result<Question, Error> {
        let QuestionLine { id: own, question, answers, document, mut documents, kind, passage } = line;
        let (path, line) = (&self.path, self.line);
        self.filled(&question, id, "question")?;
        if documents.is_empty() {
            documents.extend(document);
        }
        documents.iter().try_for_each(|document| self.filled(document, id, "documents"))?;
        let mut earlier = documents.iter();
        while let Some(id) = earlier.next_back() {
            if earlier.clone().any(|other| other == id) {
                return Err(Error::RepeatedDocument { path: path.clone(), line, id: id.clone(), question });
            }
        }
        if answers.iter().all(|answer| answer.trim().is_empty()) {
            return Err(Error::NoAnswer { path: path.clone(), line, question });
        }
        if passage.is_some_and(|(start, end)| start >= end) {
            return Err(self.malformed(0, "the field `passage` must be [first byte, byte behind the last]"));
        }
        let id = own.unwrap_or_else(|| format!("{id}-{number}"));
        Ok(Question { id, question, answers, documents, kind, passage })
    }

    fn json<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| {
            // serde_json counts lines from this line on; the column is what helps.
            let (column, reason) = (error.column(), error.to_string());
            self.malformed(column, reason.split(" at line ").next().unwrap_or_default())
        })
    }

    fn malformed(&self, column: usize, reason: &str) -> Error {
        Error::Malformed { path: self.path.clone(), line: self.line, column, reason: reason.to_owned() }
    }

    fn filled(&self, value: &str, id: &str, field: &'static str) -> Result<(), Error> {
        match value.trim() {
            "" => Err(Error::Blank { path: self.path.clone(), line: self.line, id: id.to_owned(), field }),
            _ => Ok(()),
        }
    }

    /// The text of a line without `text`: `<id>.txt` beside the JSONL file, and nowhere else.
    fn text_file(&self, id: &str) -> Result<String, Error> {
        let name = format!("{id}.txt");
        let inside = Path::new(&name).file_name().is_some_and(|last| last == name.as_str()) && !name.contains('\\');
        let file = self.path.with_file_name(&name);
        let text = if inside {
            std::fs::read_to_string(&file)
        } else {
            Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "an id that is a path names no text file"))
        };
        text.map_err(|source| Error::Text { path: self.path.clone(), line: self.line, id: id.to_owned(), file, source })
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<QaDocument, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.next_line() {
            Ok(Some(bytes)) => {
                self.found = true;
                Some(self.parse(&bytes))
            }
            Ok(None) => {
                self.ended = true;
                (!self.found).then(|| Err(Error::Empty { path: self.path.clone() }))
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

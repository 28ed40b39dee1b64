//! JSON Lines to documents, one line at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, QaDocument, Question};

/// An iterator over the documents of a JSON Lines source; one line is in memory at a time.
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
    questions: Vec<QuestionLine>,
}

#[derive(Deserialize)]
struct QuestionLine {
    id: Option<String>,
    question: String,
    answers: Vec<String>,
    #[serde(default)]
    documents: Vec<String>,
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
        let (path, line) = (&self.path, self.line);
        let DocumentLine { id, title, text, questions } = serde_json::from_slice(bytes).map_err(|error| {
            // serde_json counts lines from this line on; the column is what helps.
            let (column, reason) = (error.column(), error.to_string());
            let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
            Error::Malformed { path: path.clone(), line, column, reason }
        })?;
        let filled = |value: &str, field| match value.trim() {
            "" => Err(Error::Blank { path: path.clone(), line, id: id.clone(), field }),
            _ => Ok(()),
        };
        filled(&id, "id")?;
        let questions = questions
            .into_iter()
            .enumerate()
            .map(|(index, QuestionLine { id: own, question, answers, documents })| {
                filled(&question, "question")?;
                documents.iter().try_for_each(|document| filled(document, "documents"))?;
                let mut earlier = documents.iter();
                while let Some(id) = earlier.next_back() {
                    if earlier.clone().any(|other| other == id) {
                        return Err(Error::RepeatedDocument { path: path.clone(), line, id: id.clone(), question });
                    }
                }
                if answers.iter().all(|answer| answer.trim().is_empty()) {
                    return Err(Error::NoAnswer { path: path.clone(), line, question });
                }
                Ok(Question { id: own.unwrap_or_else(|| format!("{id}-{}", index + 1)), question, answers, documents })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let text = match text {
            Some(text) => text,
            None => self.text_file(&id)?,
        };
        filled(&text, "text")?;
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

//! Documents on disk, of which one piece at a time is in memory.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error as _};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Bytes of text that a unit stands for: long documents are many units.
const UNIT: usize = 1 << 16;

/// The byte order mark that some editors put in front of a file.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Plain-text files, each a document, and JSON Lines files, a document a line:
/// `{"id": .., "text": .., "questions": [{"question": .., "answers": [..]}]}`; other fields are ignored.
///
/// Opening reads every file once and keeps a few numbers for each document. A document's text is read when it is its
/// turn.
#[derive(Debug)]
pub struct Corpus {
    files: Vec<PathBuf>,
    units: Vec<Unit>,
    digest: String,
}

/// A part of a document.
#[derive(Debug, Clone, Copy)]
struct Unit {
    file: usize,
    /// From 1; 0 in a plain-text file.
    line: usize,
    /// Bytes of the line, or of the part, in the file.
    offset: u64,
    len: usize,
    /// The part's first byte in the document's text.
    from: usize,
}

/// A part of a document, with the text that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// File and line, or byte.
    pub(crate) name: String,
    /// File and line of a document.
    pub(crate) document: String,
    /// The document's text, or, of a plain-text file, the part and some text behind it.
    pub(crate) text: String,
    /// The part's first byte in `text`.
    pub(crate) from: usize,
    /// Questions, each with its first answer.
    pub(crate) questions: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    text: String,
    #[serde(default)]
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    #[serde(rename = "answers", deserialize_with = "first_answer")]
    answer: String,
}

/// The first answer that says something.
fn first_answer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut answers = Vec::<String>::deserialize(deserializer)?.into_iter();
    let answer = answers.find(|answer| !answer.trim().is_empty());
    answer.ok_or_else(|| D::Error::custom("a question has no answer in `answers`"))
}

impl Corpus {
    /// Opens files: those that end in `.jsonl` are JSON Lines, all others plain text.
    ///
    /// # Errors
    /// [`Error::Data`] with file and line for a line that is no document, a question without an answer, an id that is there
    /// twice, text that is not UTF-8; [`Error::NoData`] when there is nothing in the files.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut corpus = Self { files: Vec::new(), units: Vec::new(), digest: String::new() };
        let (mut ids, mut hash) = (HashSet::new(), Sha256::new());
        for path in paths {
            let path = path.as_ref();
            let io = |source| Error::Io { path: path.to_path_buf(), source };
            let mut input = BufReader::new(File::open(path).map_err(io)?);
            corpus.files.push(path.to_path_buf());
            match path.extension().is_some_and(|extension| extension == "jsonl") {
                true => corpus.add_lines(&mut input, path, &mut ids, &mut hash)?,
                false => corpus.add_text(&mut input, path, &mut hash)?,
            }
        }
        if corpus.units.is_empty() {
            return Err(Error::NoData { files: corpus.files });
        }
        corpus.digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(corpus)
    }

    /// Parts of documents that can be drawn.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there is nothing; never so for a corpus that was opened.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The files, in the order in which they were given.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// SHA-256 of the files' contents, in hexadecimal.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    fn add_lines(
        &mut self,
        input: &mut impl BufRead,
        path: &Path,
        ids: &mut HashSet<String>,
        hash: &mut Sha256,
    ) -> Result<()> {
        let (mut offset, mut line, mut bytes) = (0, 0, Vec::new());
        loop {
            bytes.clear();
            let len = input.read_until(b'\n', &mut bytes).map_err(|source| Error::Io { path: path.into(), source })?;
            if len == 0 {
                return Ok(());
            }
            line += 1;
            hash.update(&bytes);
            let mark = if line == 1 && bytes.starts_with(MARK) { MARK.len() } else { 0 };
            let (start, bytes) = (offset + mark as u64, bytes.get(mark..).unwrap_or_default());
            if !bytes.trim_ascii().is_empty() {
                let document = parse(bytes, path, line)?;
                if let Some(id) = document.id
                    && !ids.insert(id.clone())
                {
                    let detail = format!("a document of id {id:?} was there before");
                    return Err(Error::Data { path: path.into(), line, detail });
                }
                let file = self.files.len() - 1;
                let parts = (0..document.text.len()).step_by(UNIT);
                self.units.extend(parts.map(|from| Unit { file, line, offset: start, len: bytes.len(), from }));
            }
            offset += len as u64;
        }
    }

    fn add_text(&mut self, input: &mut impl Read, path: &Path, hash: &mut Sha256) -> Result<()> {
        let mut buffer = vec![0; UNIT];
        let (mut offset, mut kept) = (0u64, 0);
        loop {
            let io = |source| Error::Io { path: path.into(), source };
            let read = fill(input, buffer.get_mut(kept..).unwrap_or_default()).map_err(io)?;
            let part = buffer.get(..kept + read).unwrap_or_default();
            if part.is_empty() {
                return Ok(());
            }
            let whole = match std::str::from_utf8(part) {
                Ok(text) => text.len(),
                // A character that the next part completes.
                Err(error) if error.error_len().is_none() && read > 0 => error.valid_up_to(),
                Err(error) => {
                    let detail = format!("not UTF-8 at byte {}", offset as usize + error.valid_up_to());
                    return Err(Error::Data { path: path.into(), line: 0, detail });
                }
            };
            hash.update(part.get(..whole).unwrap_or_default());
            if whole > 0 {
                self.units.push(Unit { file: self.files.len() - 1, line: 0, offset, len: whole, from: 0 });
            }
            kept = part.len() - whole;
            buffer.copy_within(whole..whole + kept, 0);
            offset += whole as u64;
        }
    }

    /// Whether a unit is the first of a document that may have questions; all units of a document have the same.
    pub(crate) fn may_ask(&self, unit: usize) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.line > 0 && unit.from == 0)
    }

    /// A unit's part of its document.
    pub(crate) fn piece(&self, unit: usize) -> Result<Piece> {
        let Some(&Unit { file, line, offset, len, from }) = self.units.get(unit) else {
            return Err(Error::NoData { files: self.files.clone() });
        };
        let path = self.files.get(file).cloned().unwrap_or_default();
        // Behind a part of a plain text stands the next part, in which a sample may end.
        let len = if line == 0 { 2 * len } else { len };
        let mut bytes = Vec::with_capacity(len);
        let read = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.take(len as u64).read_to_end(&mut bytes)
        });
        read.map_err(|source| Error::Io { path: path.clone(), source })?;
        if line > 0 {
            let document = parse(&bytes, &path, line)?;
            let questions = document.questions.into_iter().map(|asked| (asked.question, asked.answer)).collect();
            let name = format!("{}:{line}", path.display());
            return Ok(Piece { document: name.clone(), name, from, questions, text: document.text });
        }
        let valid = match std::str::from_utf8(&bytes) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        bytes.truncate(valid);
        let text = String::from_utf8(bytes).unwrap_or_default();
        let document = path.display().to_string();
        Ok(Piece { name: format!("{document} from byte {offset}"), document, text, from: 0, questions: Vec::new() })
    }
}

fn parse(bytes: &[u8], path: &Path, line: usize) -> Result<Line> {
    let document: Result<Line, _> = serde_json::from_slice(bytes);
    document.map_err(|error| {
        let detail = error.to_string();
        let reason = detail.split(" at line ").next().unwrap_or_default();
        Error::Data { path: path.into(), line, detail: format!("{reason}, at column {}", error.column()) }
    })
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

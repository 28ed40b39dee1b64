//! The file that self-study writes: one question a line, whole or not there, and a draft beside it that is gone on with.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use crate::{Error, Result, dataset::QaDocument};

/// What tells a passage: its document, and the bytes of the document's text.
pub(super) type Key = (String, (usize, usize));

/// A file under construction.
pub(super) struct Draft {
    target: PathBuf,
    path: PathBuf,
    file: File,
    /// The first passage of which it is not sure that all questions are there.
    pub(super) from: Option<Key>,
    /// Lines that were there already.
    pub(super) kept: Vec<QaDocument>,
}

impl Draft {
    /// Opens the draft of `target`, or begins one. `settings` names what the questions follow from: a draft of other
    /// settings is another draft.
    pub(super) fn open(target: &Path, settings: &str) -> Result<Self> {
        if target.exists() {
            let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "there is such a file already");
            return Err(Error::io("create", target, source));
        }
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{settings}.part"));
        let path = target.with_file_name(name);
        let failed = |action| {
            let path = path.clone();
            move |error| Error::io(action, &path, error)
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("create"))?;
        let mut lines = Vec::new();
        let mut reader = BufReader::new(&file);
        let (mut line, mut end) = (Vec::new(), 0);
        while reader.read_until(b'\n', &mut line).map_err(failed("read"))? > 0 && line.ends_with(b"\n") {
            // A line that cannot be read is where the last run was killed.
            let Some(Ok(document)) = crate::dataset::Reader::new(line.as_slice(), &path).next() else { break };
            lines.push((end, document));
            end += line.len() as u64;
            line.clear();
        }
        // The questions of a passage are several lines: the last one's may not all be there.
        let from = lines.last().and_then(|(_, document)| key(document));
        while let Some((start, _)) = lines.pop_if(|(_, document)| key(document) == from) {
            end = start;
        }
        file.set_len(end).map_err(failed("shorten"))?;
        let mut draft = Self {
            target: target.to_path_buf(),
            path: path.clone(),
            file,
            from,
            kept: lines.into_iter().map(|(_, document)| document).collect(),
        };
        std::io::Seek::seek(&mut draft.file, std::io::SeekFrom::Start(end)).map_err(failed("read"))?;
        Ok(draft)
    }

    /// Appends the questions of one passage.
    pub(super) fn add(&mut self, lines: &[QaDocument]) -> Result<()> {
        let mut bytes = Vec::new();
        crate::dataset::write_to(&mut bytes, lines).map_err(|error| Error::io("write", &self.path, error))?;
        self.file.write_all(&bytes).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Makes durable what is there so far.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("write", &self.path, error))
    }

    /// The draft becomes the file.
    pub(super) fn publish(self) -> Result<()> {
        self.sync()?;
        fs::rename(&self.path, &self.target).map_err(|error| Error::io("create", &self.target, error))?;
        let parent = self.target.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        // Directories cannot be opened everywhere; where they can, the name is made durable too.
        if let Ok(directory) = File::open(parent) {
            directory.sync_all().map_err(|error| Error::io("write into", parent, error))?;
        }
        Ok(())
    }

    /// Removes the draft.
    pub(super) fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|error| Error::io("remove", &self.path, error))
    }
}

fn key(document: &QaDocument) -> Option<Key> {
    let passage = document.questions.first()?.passage?;
    Some((document.id.clone(), passage))
}

//! The files that a pattern stands for.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use glob::Pattern;

use crate::{Error, Result};

/// What a pattern matches.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    pub(crate) files: BTreeSet<PathBuf>,
    /// Files whose paths are not UTF-8, and so cannot be ids.
    pub(crate) unnameable: BTreeSet<PathBuf>,
}

impl Matches {
    /// Adds the files of a pattern; the name of a file that exists stands for itself.
    ///
    /// # Errors
    /// [`Error::Pattern`]; [`Error::NoFiles`].
    pub(crate) fn add(&mut self, pattern: &str) -> Result<()> {
        if Path::new(pattern).is_file() {
            self.files.insert(pattern.into());
            return Ok(());
        }
        let fail = |reason: String| Error::Pattern { pattern: pattern.to_owned(), reason };
        let before = self.files.len() + self.unnameable.len();
        let mut known = false;
        for path in glob::glob(pattern).map_err(|e| fail(e.to_string()))? {
            let path = path.map_err(|e| fail(e.to_string()))?;
            if path.is_file() {
                let files = if path.to_str().is_some() { &mut self.files } else { &mut self.unnameable };
                known |= !files.insert(path);
            }
        }
        // The library for patterns passes over last names that are not UTF-8.
        let (base, parts) = split(pattern);
        walk(&base, &parts, &mut self.unnameable);
        match known || self.files.len() + self.unnameable.len() > before {
            true => Ok(()),
            false => Err(Error::NoFiles { pattern: pattern.to_owned() }),
        }
    }
}

/// A pattern's leading directories, which have no wildcards, and the parts behind them.
fn split(pattern: &str) -> (PathBuf, Vec<&str>) {
    let mut base = PathBuf::new();
    let mut parts = Vec::new();
    for component in Path::new(pattern).components() {
        let text = component.as_os_str().to_str().unwrap_or_default();
        let plain = !matches!(component, Component::Normal(_)) || !text.contains(['*', '?', '[']);
        if parts.is_empty() && plain { base.push(component) } else { parts.push(text) }
    }
    (base, parts)
}

/// Collects the files below `directory` that the parts match and whose paths are not UTF-8. What cannot be listed is
/// passed over, as such directories are when patterns are matched.
fn walk(directory: &Path, parts: &[&str], found: &mut BTreeSet<PathBuf>) {
    let Some((part, rest)) = parts.split_first() else { return };
    if *part == "**" {
        walk(directory, rest, found);
    }
    let Ok(pattern) = Pattern::new(part) else { return };
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    for entry in fs::read_dir(listed).into_iter().flatten().flatten() {
        let path = directory.join(entry.file_name());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if *part == "**" {
            // Links are not followed here: they may lead in circles.
            if is_directory {
                walk(&path, parts, found);
            }
        } else if pattern.matches(&entry.file_name().to_string_lossy()) {
            if !rest.is_empty() {
                walk(&path, rest, found);
            } else if path.to_str().is_none() && path.is_file() {
                found.insert(path);
            }
        }
    }
}

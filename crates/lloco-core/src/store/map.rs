//! Memory mapping of immutable files: the one place with `unsafe` code in this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a whole file for reading.
///
/// Only for files that are complete before they get their name and are never written again:
/// summaries. A file is removed by unlinking, which leaves existing mappings intact.
///
/// # Errors
/// [`Error::Damaged`] if the file is missing; [`Error::Io`] if it cannot be read.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::damaged(path, "it is missing"),
        _ => Error::io("open", path, error),
    })?;
    // SAFETY: the bytes must not change while mapped. This library never changes a summary file
    // in place: it renames complete files and unlinks them. Another program that truncates one
    // meanwhile can end this process by a signal, as with every memory-mapped format.
    unsafe { Mmap::map(&file) }.map_err(|error| Error::io("map", path, error))
}

//! Memory-mapped files.

use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// Maps a file read-only.
///
/// As with every mapped file, changing it in place while it is mapped changes what is
/// read. The crate's own files are replaced by renaming or grown at the end, never changed.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: The mapping is private and read-only. Readers treat its bytes as untrusted
    // data without invariants, so a change from outside can spoil numbers, not memory.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

//! Read-only memory maps of checkpoint files: the crate's only unsafe code outside the CPU kernels.
#![allow(unsafe_code)]

use std::{fs::File, ops::Deref, path::Path};

use memmap2::Mmap;

use crate::{Error, Result};

/// A file's bytes, paged in on demand.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this process. Should another process truncate the
        // file while it is mapped, reads past its end fault; that is the accepted contract of mapping a
        // checkpoint, as in every loader of this format. All parsing bounds itself by the mapped length.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self(map))
    }

    /// Lets the system have the pages back that were read so far; the next look at them reads the file again. So a
    /// file of which every part is read once need not be in memory as a whole. Elsewhere than on Linux it does nothing.
    pub(crate) fn forget(&self) {
        // SAFETY: the map is shared with the file and read-only: pages that go come back with the file's bytes, which
        // the contract above holds to be the same. Should the system refuse, nothing has changed.
        #[cfg(target_os = "linux")]
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

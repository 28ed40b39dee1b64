//! Writing: whole files, and blocks behind those that are there.

use super::super::rows::{RowType, Rows};
use super::super::{Backing, DenseIndex};
use super::{ALIGN, BLOCK_HEADER, HASHED, HEADER, MAGIC, REMOVALS, ROWS, check_unchanged};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Writes the live rows as one block to a temporary file, then renames it to `path`.
pub(in crate::dense) fn save(index: &DenseIndex, path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(Error::io("write in", directory))?;
    write_file(index, file.as_file_mut()).map_err(Error::io("write", path))?;
    file.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    // The new name is on disk once its directory is; not every system can sync one.
    #[cfg(unix)]
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(Error::io("write in", directory))?;
    Ok(())
}

fn write_file(index: &DenseIndex, file: &mut File) -> io::Result<()> {
    file.write_all(&[0; HEADER])?;
    let live = index.live();
    let length = write_block(file, HEADER as u64, ROWS, index.len(), |out| {
        live.into_iter().try_for_each(|(_, key)| out.write(&key.to_le_bytes()))?;
        out.pad()?;
        let rows = |write: &mut dyn FnMut(Rows<'_>) -> io::Result<()>| -> io::Result<()> {
            let mut first = 0;
            for segment in &index.segments {
                let mut alive = (0..segment.len()).filter(|row| !index.dead.contains(&(first + row)));
                alive.try_for_each(|row| write(segment.rows().part(row..row + 1, index.dim)))?;
                first += segment.len();
            }
            Ok(())
        };
        if index.row_type == RowType::I8 {
            rows(&mut |row| out.write(row.scale_bytes()))?;
            out.pad()?;
        }
        rows(&mut |row| out.write(row.bytes()))
    })?;
    write_header(index, file, length)
}

/// Appends what the file lacks and returns its path.
pub(in crate::dense) fn append(index: &DenseIndex) -> Result<PathBuf> {
    let Backing { path, length, segments, dead } = index.file.as_ref().ok_or(Error::NotSaved)?;
    let new = index.segments.get(*segments..).unwrap_or_default();
    let mut removals: Vec<usize> = index.dead.difference(dead).copied().collect();
    removals.sort_unstable();
    if new.is_empty() && removals.is_empty() {
        return Ok(path.clone());
    }

    let write = || Error::io("write", path);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).open(path).map_err(write())?;
    file.lock().map_err(write())?;
    check_unchanged(index)?;
    let mut append = || -> io::Result<()> {
        let mut end = *length;
        for segment in new {
            end = write_block(&mut file, end, ROWS, segment.len(), |out| {
                out.write(bytemuck::cast_slice(segment.keys()))?;
                out.pad()?;
                if index.row_type == RowType::I8 {
                    out.write(segment.rows().scale_bytes())?;
                    out.pad()?;
                }
                out.write(segment.rows().bytes())
            })?;
        }
        if !removals.is_empty() {
            end = write_block(&mut file, end, REMOVALS, removals.len(), |out| {
                let mut rows = removals.iter();
                rows.try_for_each(|&row| out.write(&(row as u64).to_le_bytes()))
            })?;
        }
        // The header counts the blocks in, so they must be on disk before it.
        file.sync_all()?;
        write_header(index, &mut file, end)
    };
    append().map_err(write())?;
    Ok(path.clone())
}

/// Writes a block at `start` and returns where the next one goes.
fn write_block(
    file: &mut File,
    start: u64,
    kind: u64,
    count: usize,
    payload: impl FnOnce(&mut Payload<'_>) -> io::Result<()>,
) -> io::Result<u64> {
    file.seek(SeekFrom::Start(start + BLOCK_HEADER as u64))?;
    let mut out = Payload { out: BufWriter::with_capacity(1 << 20, &mut *file), hash: Sha256::new(), length: 0 };
    payload(&mut out)?;
    let (digest, length) = (out.hash.clone().finalize(), out.length as u64);
    out.pad()?;
    let end = start + (BLOCK_HEADER + out.length) as u64;
    out.out.flush()?;
    drop(out);

    let mut header = Vec::with_capacity(BLOCK_HEADER);
    for number in [kind, count as u64, length, 0] {
        header.extend(number.to_le_bytes());
    }
    header.extend(digest);
    file.seek(SeekFrom::Start(start))?;
    file.write_all(&header)?;
    Ok(end)
}

/// A block's payload on its way to the file.
struct Payload<'a> {
    out: BufWriter<&'a mut File>,
    hash: Sha256,
    length: usize,
}

impl Payload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len();
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    /// Zero bytes up to a multiple of 64.
    fn pad(&mut self) -> io::Result<()> {
        let padding = self.length.next_multiple_of(ALIGN) - self.length;
        self.write([0; ALIGN].get(..padding).unwrap_or_default())
    }
}

/// Writes the header, the last step that makes `length` bytes of the file count.
fn write_header(index: &DenseIndex, file: &mut File, length: u64) -> io::Result<()> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    let (version, row_type): (u32, u32) = match index.row_type {
        RowType::F16 => (1, 1),
        RowType::F32 => (1, 2),
        RowType::I8 => (2, 3),
    };
    header.extend(version.to_le_bytes());
    header.extend(row_type.to_le_bytes());
    header.extend((index.dim as u64).to_le_bytes());
    header.extend(length.to_le_bytes());
    header.extend(index.fingerprint.as_bytes());
    header.resize(HASHED, 0);
    header.extend(Sha256::digest(&header));
    file.rewind()?;
    file.write_all(&header)?;
    file.sync_all()
}

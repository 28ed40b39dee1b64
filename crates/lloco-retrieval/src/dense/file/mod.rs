//! The index's file: a header and blocks that are only ever appended.
//!
//! All numbers are little-endian. Header, 128 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `LLOCODNS` |
//! | 8..12 | format version, u32: 1, or 2 with rows of 8 bits |
//! | 12..16 | row type, u32: 1 f16, 2 f32, 3 i8 |
//! | 16..24 | dimensions, u64 |
//! | 24..32 | bytes of the file that count, u64 |
//! | 32..96 | embedder fingerprint, padded with zero bytes |
//! | 96..128 | SHA-256 of bytes 0..96 |
//!
//! Block, padded with zero bytes to a multiple of 64:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | kind, u64: 1 rows, 2 removals |
//! | 8..16 | count, u64 |
//! | 16..24 | bytes of the payload, u64 |
//! | 24..32 | zero |
//! | 32..64 | SHA-256 of the payload |
//! | 64.. | payload |
//!
//! Rows: `count` keys (u64), zero bytes up to a multiple of 64, `count` rows. Rows of 8 bits have `count` scales (f32)
//! before them, and zero bytes up to a multiple of 64 again. Removals:
//! `count` row numbers (u64), counted from 0 through all rows blocks. An appended block
//! counts once the header says so, which is written when the block is on disk.

mod write;

pub(super) use write::{append, save};

use super::rows::{RowType, Segment, scales_size};
use super::{Backing, DenseIndex};
use crate::raw::map::map;
use crate::{Error, Result};
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LLOCODNS";
/// Latest format that this build reads.
const VERSION: u32 = 2;
const HEADER: usize = 128;
/// Bytes of the header that its checksum covers.
const HASHED: usize = 96;
/// Bytes that a fingerprint may have.
pub(super) const FINGERPRINT: usize = HASHED - 32;
const BLOCK_HEADER: usize = 64;
pub(super) const ALIGN: usize = 64;
const ROWS: u64 = 1;
const REMOVALS: u64 = 2;

const _: () = assert!(cfg!(target_endian = "little"), "rows are mapped as they lie");

pub(super) fn open(path: &Path) -> Result<DenseIndex> {
    let map = Arc::new(map(path)?);
    let file = Bytes { path, map: &map };
    let header = file.header()?;
    let mut index =
        DenseIndex::new(header.dim, &header.fingerprint, header.row_type).map_err(|e| file.damaged(&e.to_string()))?;
    let mut rows = 0;
    for block in file.blocks(&header)? {
        match block.kind {
            ROWS => {
                let segment = block
                    .row_ranges(&header)
                    .and_then(|[keys, rows]| Segment::mapped(&map, keys, rows, header.row_type))
                    .ok_or_else(|| file.damaged("a block's size does not fit its count"))?;
                index.segments.push(segment);
                rows += block.count;
            }
            REMOVALS => {
                for place in block.payload.step_by(8) {
                    match file.usize(place)? {
                        row if row < rows => index.dead.insert(row),
                        _ => return Err(file.damaged("a removed row does not exist")),
                    };
                }
            }
            _ => return Err(file.damaged("a block is of unknown kind")),
        }
    }
    index.file = Some(Backing {
        path: path.to_owned(),
        length: header.length as u64,
        segments: index.segments.len(),
        dead: index.dead.clone(),
    });
    Ok(index)
}

/// Makes sure that nobody else has written to the file.
pub(super) fn check_unchanged(index: &DenseIndex) -> Result<()> {
    let Backing { path, length, .. } = index.file.as_ref().ok_or(Error::NotSaved)?;
    let map = map(path)?;
    match (Bytes { path, map: &map }).header()?.length as u64 == *length {
        true => Ok(()),
        false => Err(Error::Changed { path: path.clone() }),
    }
}

/// Compares every block with its checksum.
pub(super) fn verify(index: &DenseIndex) -> Result<()> {
    let path = &index.file.as_ref().ok_or(Error::NotSaved)?.path;
    let map = map(path)?;
    let file = Bytes { path, map: &map };
    for block in file.blocks(&file.header()?)? {
        let payload = file.get(block.payload)?;
        if Sha256::digest(payload).as_slice() != block.digest {
            return Err(file.damaged("a block does not match its checksum"));
        }
    }
    Ok(())
}

/// The file's bytes, read with suspicion.
struct Bytes<'a> {
    path: &'a Path,
    map: &'a Mmap,
}

struct Header {
    dim: usize,
    row_type: RowType,
    fingerprint: String,
    /// Bytes that count, at most the file's.
    length: usize,
}

struct Block {
    kind: u64,
    count: usize,
    payload: Range<usize>,
    digest: Vec<u8>,
}

impl Bytes<'_> {
    fn header(&self) -> Result<Header> {
        if self.map.get(..8) != Some(MAGIC) {
            return Err(Error::malformed(self.path, "it is not a dense index"));
        }
        let version = self.u32(8)?;
        if version > VERSION {
            return Err(Error::FormatVersion { path: self.path.to_owned(), found: version, supported: VERSION });
        }
        if self.get(HASHED..HEADER)? != Sha256::digest(self.get(0..HASHED)?).as_slice() {
            return Err(self.damaged("the header does not match its checksum"));
        }
        let row_type = match self.u32(12)? {
            1 => RowType::F16,
            2 => RowType::F32,
            3 => RowType::I8,
            _ => return Err(self.damaged("the row type is unknown")),
        };
        let fingerprint = self.get(32..HASHED)?;
        let end = fingerprint.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        let fingerprint = fingerprint.get(..end).unwrap_or_default();
        let header = Header {
            dim: self.usize(16)?,
            row_type,
            fingerprint: String::from_utf8(fingerprint.to_vec())
                .map_err(|_| self.damaged("the fingerprint is not text"))?,
            length: self.usize(24)?,
        };
        if !(HEADER..=self.map.len()).contains(&header.length) {
            return Err(self.damaged("it is shorter than its header says"));
        }
        Ok(header)
    }

    fn blocks(&self, header: &Header) -> Result<Vec<Block>> {
        let mut blocks = Vec::new();
        let mut place = HEADER;
        while place < header.length {
            let start = place + BLOCK_HEADER;
            let end = start.checked_add(self.usize(place + 16)?);
            let next = end.and_then(|end| end.checked_next_multiple_of(ALIGN));
            let (Some(end), Some(next)) = (end, next.filter(|&next| next <= header.length)) else {
                return Err(self.damaged("a block runs past the end"));
            };
            blocks.push(Block {
                kind: self.u64(place)?,
                count: self.usize(place + 8)?,
                payload: start..end,
                digest: self.get(place + 32..start)?.to_vec(),
            });
            place = next;
        }
        Ok(blocks)
    }

    fn get(&self, range: Range<usize>) -> Result<&[u8]> {
        let bytes = self.map.get(range);
        bytes.ok_or_else(|| self.damaged("it ends too early"))
    }

    fn u32(&self, place: usize) -> Result<u32> {
        let bytes = self.get(place..place + 4)?.first_chunk();
        Ok(u32::from_le_bytes(bytes.copied().unwrap_or_default()))
    }

    fn u64(&self, place: usize) -> Result<u64> {
        let bytes = self.get(place..place + 8)?.first_chunk();
        Ok(u64::from_le_bytes(bytes.copied().unwrap_or_default()))
    }

    fn usize(&self, place: usize) -> Result<usize> {
        let number = usize::try_from(self.u64(place)?);
        number.map_err(|_| self.damaged("a number is too large"))
    }

    fn damaged(&self, detail: &str) -> Error {
        Error::Damaged { path: self.path.to_owned(), detail: detail.to_owned() }
    }
}

impl Block {
    /// Where the keys and the rows of a rows block lie, if its size fits its count.
    fn row_ranges(&self, header: &Header) -> Option<[Range<usize>; 2]> {
        let Range { start, end } = self.payload;
        let keys = start..start.checked_add(self.count.checked_mul(8)?)?;
        let rows_start = keys.end.checked_next_multiple_of(ALIGN)?;
        let row = header.dim.checked_mul(header.row_type.size())?;
        let scales = if header.row_type == RowType::I8 { scales_size(self.count) } else { 0 };
        let rows = rows_start..rows_start.checked_add(scales)?.checked_add(self.count.checked_mul(row)?)?;
        (rows.end == end).then_some([keys, rows])
    }
}

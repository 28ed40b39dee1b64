//! Dense search, exact and near.

mod file;
mod near;
mod rows;
mod search;

pub use rows::RowType;

use crate::{Embeddings, Error, Filter, Hit, Result};
use near::Signs;
use rows::{Segment, check_rows};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Pieces of a file from which on it is written anew.
const MOST_SEGMENTS: usize = 256;
/// Dead rows that are no reason to write a file anew.
const FEW: usize = 1024;

/// Vectors under keys, searched exactly: every search compares the query with every row.
///
/// Scores are inner products, so cosines where the vectors have length 1. Rows are held as
/// f16 unless told otherwise; a file is mapped into memory, not read. Adding and removing
/// costs time in proportion to the change; [`commit`](Self::commit) appends it to the file.
///
/// ```
/// use lloco_retrieval::{DenseIndex, Embeddings, RowType};
///
/// # fn main() -> lloco_retrieval::Result<()> {
/// let mut index = DenseIndex::new(2, "embedder", RowType::F16)?;
/// index.add(&[7, 8], &Embeddings::new(2, vec![1.0, 0.0, 0.6, 0.8])?)?;
/// let hits = index.search(&[0.0, 1.0], 1)?;
/// assert_eq!(hits[0].key, 8);
///
/// # let directory = tempfile::tempdir().unwrap();
/// let path = directory.path().join("dense.index");
/// index.save(&path)?;
/// assert_eq!(DenseIndex::open(&path, "embedder")?.search(&[0.0, 1.0], 1)?, hits);
/// # Ok(())
/// # }
/// ```
pub struct DenseIndex {
    dim: usize,
    row_type: RowType,
    fingerprint: String,
    /// Rows are numbered through all segments, in order.
    segments: Vec<Segment>,
    /// Rows that were removed or replaced.
    dead: HashSet<usize>,
    /// Row of each live key; made when first needed.
    places: Option<HashMap<u64, usize>>,
    /// Signs of all rows; made when first needed.
    signs: OnceLock<Signs>,
    /// The file that holds the first segments, if any.
    file: Option<Backing>,
}

/// What of an index its file holds.
struct Backing {
    path: PathBuf,
    /// Bytes of the file that count.
    length: u64,
    /// Segments in the file.
    segments: usize,
    /// Dead rows in the file.
    dead: HashSet<usize>,
}

impl DenseIndex {
    /// An empty index in memory for vectors of `dim` numbers, made by the embedder with
    /// this [fingerprint](crate::Embedder::fingerprint).
    ///
    /// # Errors
    /// `dim` is 0, or the fingerprint does not fit a file's header: 64 bytes, no zero byte.
    pub fn new(dim: usize, fingerprint: &str, row_type: RowType) -> Result<Self> {
        if dim == 0 {
            return Err(Error::InvalidConfig { field: "dim", found: "0".into(), expected: "at least 1".into() });
        }
        if fingerprint.len() > file::FINGERPRINT || fingerprint.contains('\0') {
            return Err(Error::InvalidConfig {
                field: "fingerprint",
                found: format!("{fingerprint:?}"),
                expected: format!("at most {} bytes, none of them zero", file::FINGERPRINT),
            });
        }
        Ok(Self {
            dim,
            row_type,
            fingerprint: fingerprint.to_owned(),
            segments: Vec::new(),
            dead: HashSet::new(),
            places: None,
            signs: OnceLock::new(),
            file: None,
        })
    }

    /// Maps an index that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// The file is missing, damaged, of a later format version, or was built with an
    /// embedder of another fingerprint.
    pub fn open(path: impl AsRef<Path>, fingerprint: &str) -> Result<Self> {
        let path = path.as_ref();
        let index = file::open(path)?;
        if index.fingerprint != fingerprint {
            return Err(Error::Fingerprint {
                path: path.to_owned(),
                expected: fingerprint.to_owned(),
                found: index.fingerprint,
            });
        }
        Ok(index)
    }

    /// Number of vectors that can be found.
    pub fn len(&self) -> usize {
        self.rows() - self.dead.len()
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How rows are held.
    pub fn row_type(&self) -> RowType {
        self.row_type
    }

    /// Fingerprint of the embedder that made the vectors.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Keys of the vectors that can be found, in the order they were added.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.live().map(|(_, key)| key)
    }

    /// Whether there is a vector under `key`.
    pub fn contains(&mut self, key: u64) -> bool {
        self.places().contains_key(&key)
    }

    /// Adds one vector a key; a key that is there already gets the new vector.
    ///
    /// # Errors
    /// Keys and vectors differ in number, vectors have another length than the index's, or
    /// hold a number that cannot be stored. Nothing is added then.
    pub fn add(&mut self, keys: &[u64], vectors: &Embeddings) -> Result<()> {
        if keys.len() != vectors.len() {
            return Err(Error::KeyCount { keys: keys.len(), rows: vectors.len() });
        }
        if keys.is_empty() {
            return Ok(());
        }
        if vectors.dim() != self.dim {
            return Err(Error::Dimension { expected: self.dim, found: vectors.dim() });
        }
        check_rows(vectors, self.row_type)?;

        let first = self.rows();
        let places = self.places();
        let replaced: Vec<usize> = keys.iter().zip(first..).filter_map(|(&key, row)| places.insert(key, row)).collect();
        self.dead.extend(replaced);
        let in_file = self.file.as_ref().map_or(0, |file| file.segments);
        if self.segments.len() == in_file {
            self.segments.push(Segment::empty(self.row_type));
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.extend(keys, vectors);
        }
        if let Some(signs) = self.signs.get_mut() {
            signs.extend(vectors);
        }
        Ok(())
    }

    /// Removes the vectors of these keys and says how many there were.
    pub fn remove(&mut self, keys: &[u64]) -> usize {
        let places = self.places();
        let removed: Vec<usize> = keys.iter().filter_map(|key| places.remove(key)).collect();
        self.dead.extend(&removed);
        removed.len()
    }

    /// The `k` vectors with the largest inner product with `query`, largest first.
    ///
    /// # Errors
    /// The query has another length than the index's vectors, or holds a NaN or infinity.
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit>> {
        self.search_filtered(query, k, None)
    }

    /// The same among the keys that `filter` lets through.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_filtered(&self, query: &[f32], k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>> {
        if query.len() != self.dim {
            return Err(Error::Dimension { expected: self.dim, found: query.len() });
        }
        let query = Embeddings::new(self.dim, query.to_vec())?;
        let mut hits = self.search_batch(&query, k, filter)?;
        Ok(hits.pop().unwrap_or_default())
    }

    /// Searches for several queries in one pass over the rows; one list of hits a query.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_batch(&self, queries: &Embeddings, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Vec<Hit>>> {
        if !queries.is_empty() && queries.dim() != self.dim {
            return Err(Error::Dimension { expected: self.dim, found: queries.dim() });
        }
        check_rows(queries, RowType::F32)?;
        Ok(search::search(self, queries, k, filter))
    }

    /// Vectors with large inner products, several times faster than [`search`](Self::search) in an index of a million:
    /// the best `k` among `candidates` vectors whose signs agree most with the query's. Scores are those of `search`.
    ///
    /// With vectors of text embedders, 1,000 candidates hold nearly all of the ten nearest; `candidates` of
    /// [`len`](Self::len) make it exact. The first call reads every vector, for its signs: a bit for each number, which
    /// stay in memory.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_near(
        &self,
        query: &[f32],
        k: usize,
        candidates: usize,
        filter: Option<Filter<'_>>,
    ) -> Result<Vec<Hit>> {
        // Beyond, the count of differing signs has no room.
        if query.len() != self.dim || self.dim > usize::from(u16::MAX) {
            return self.search_filtered(query, k, filter);
        }
        check_rows(&Embeddings::new(self.dim, query.to_vec())?, RowType::F32)?;
        Ok(near::search(self, query, k, candidates, filter))
    }

    /// Writes the live vectors to a new file at `path`, which is replaced only when all is
    /// on disk, and goes on with that file mapped.
    ///
    /// # Errors
    /// The file cannot be written; what was at `path` is untouched then.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        file::save(self, path)?;
        *self = Self::open(path, &self.fingerprint)?;
        Ok(())
    }

    /// Appends what was added and removed since [`open`](Self::open) or
    /// [`save`](Self::save) to the index's file. A crash leaves the state before or after.
    ///
    /// Removed vectors keep their room in the file until most of it is theirs, or it has hundreds of pieces; then it is
    /// written anew as by `save`.
    ///
    /// # Errors
    /// The index has no file yet, another process has changed the file since, or it cannot
    /// be written.
    pub fn commit(&mut self) -> Result<()> {
        match &self.file {
            Some(file) if self.is_wasteful() => {
                let path = file.path.clone();
                file::check_unchanged(self)?;
                self.save(path)
            }
            _ => {
                let path = file::append(self)?;
                // The rows keep their order.
                let signs = std::mem::take(&mut self.signs);
                *self = Self::open(path, &self.fingerprint)?;
                self.signs = signs;
                Ok(())
            }
        }
    }

    /// Reads the index's whole file and compares it with its checksums.
    ///
    /// # Errors
    /// The file is damaged, or the index has none.
    pub fn verify(&self) -> Result<()> {
        file::verify(self)
    }

    fn is_wasteful(&self) -> bool {
        self.segments.len() > MOST_SEGMENTS || (self.dead.len() > FEW && self.dead.len() > self.len())
    }

    fn rows(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Row and key of each live vector.
    fn live(&self) -> impl Iterator<Item = (usize, u64)> {
        let keys = self.segments.iter().flat_map(|segment| segment.keys());
        let rows = keys.copied().enumerate();
        rows.filter(|(row, _)| !self.dead.contains(row))
    }

    fn places(&mut self) -> &mut HashMap<u64, usize> {
        if self.places.is_none() {
            let places = self.live().map(|(row, key)| (key, row)).collect();
            self.places = Some(places);
        }
        self.places.get_or_insert_default()
    }
}

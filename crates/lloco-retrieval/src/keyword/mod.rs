//! Keyword search: BM25 over an inverted index.

mod analyzer;
mod seal;

use crate::topk::TopK;
use crate::{Error, Filter, Hit, Result, Retriever};
use seal::Seal;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tantivy::indexer::IndexWriterOptions;
use tantivy::query::{BooleanQuery, BoostQuery, EnableScoring, Query, TermQuery};
use tantivy::schema::{FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

/// Different words of a query that are looked up. Beyond, a query is a document.
const QUERY_TERMS: usize = 1024;
/// Bytes that a thread of the index writer fills before it writes a segment.
const WRITER_BUDGET: usize = 64 << 20;
/// Texts from which on indexing with all cores pays.
const MANY: usize = 2000;

/// Texts under keys, found by the words they share with a query and ranked by BM25 (k1 = 1.2, b = 0.75).
///
/// Words are compared in lower case and by their English stems; other languages are found by their words as they stand,
/// scripts without spaces by pairs of characters. An index lives in a directory of its own, or in memory. Changes are on
/// disk when [`update`](Self::update) returns.
///
/// ```
/// use lloco_retrieval::KeywordIndex;
///
/// # fn main() -> lloco_retrieval::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("keyword");
/// let mut index = KeywordIndex::create(&path)?;
/// index.update(&[], [(7, "The pump stands in the cellar."), (8, "The roof leaks.")])?;
/// assert_eq!(index.search("Where are the pumps?", 3, None)?[0].key, 7);
///
/// index.update::<&str>(&[7], [])?;
/// drop(index);
/// assert!(KeywordIndex::open(&path)?.search("pumps", 3, None)?.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct KeywordIndex {
    index: Index,
    reader: IndexReader,
    key: Field,
    text: Field,
    place: Option<Place>,
}

/// Where an index lies.
struct Place {
    directory: PathBuf,
    seal: Seal,
}

impl KeywordIndex {
    /// An empty index in memory.
    ///
    /// # Errors
    /// Only if the system gives no memory or thread.
    pub fn in_memory() -> Result<Self> {
        contain(None, || Self::from_tantivy(Index::create_in_ram(schema()), None))
    }

    /// An empty index in `directory`, which is made, or emptied first.
    ///
    /// # Errors
    /// The directory cannot be written, or holds something else than an index.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        empty(directory)?;
        fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let _guard = seal::lock_to_write(directory)?;
        let index = contain(Some(directory), || {
            Index::create_in_dir(directory, schema()).map_err(|e| failed(Some(directory), e))
        })?;
        let seal = Seal::write(directory, None)?;
        let place = Place { directory: directory.to_owned(), seal };
        contain(Some(directory), || Self::from_tantivy(index, Some(place)))
    }

    /// Opens an index that [`create`](Self::create) made, after comparing all its files with their checksums.
    ///
    /// # Errors
    /// There is none, or it is damaged, of a later format version or made with other rules for words.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let _guard = seal::lock_to_read(directory)?;
        let seal = Seal::check(directory)?;
        let place = Place { directory: directory.to_owned(), seal };
        contain(Some(directory), || {
            let index = Index::open_in_dir(directory).map_err(|e| failed(Some(directory), e))?;
            if index.schema() != schema() {
                let detail = "its fields are not those of a keyword index".to_owned();
                return Err(Error::Damaged { path: directory.to_owned(), detail });
            }
            Self::from_tantivy(index, Some(place))
        })
    }

    fn from_tantivy(index: Index, place: Option<Place>) -> Result<Self> {
        let path = place.as_ref().map(|place| place.directory.as_path());
        let schema = index.schema();
        let field = |name| schema.get_field(name).map_err(|e| failed(path, e));
        let (key, text) = (field("key")?, field("text")?);
        index.tokenizers().register(analyzer::NAME, analyzer::analyzer());
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let reader = reader.try_into().map_err(|e| failed(path, e))?;
        Ok(Self { index, reader, key, text, place })
    }

    /// Number of texts that can be found.
    pub fn len(&self) -> usize {
        self.reader.searcher().num_docs() as usize
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether changes are written to files.
    pub fn is_on_disk(&self) -> bool {
        self.place.is_some()
    }

    /// Keys of the texts that can be found, in no order.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn keys(&self) -> Result<Vec<u64>> {
        contain(self.path(), || {
            let mut keys = Vec::with_capacity(self.len());
            for segment in self.reader.searcher().segment_readers() {
                let column = segment.fast_fields().u64("key").map_err(|e| failed(self.path(), e))?;
                keys.extend(segment.doc_ids_alive().filter_map(|text| column.first(text)));
            }
            Ok(keys)
        })
    }

    /// Removes the texts of some keys and adds others, all at once: a key that is there already gets the new text.
    ///
    /// # Errors
    /// The index cannot be written. It then stays as it was, here; on disk it may need [`create`](Self::create).
    pub fn update<T: AsRef<str>>(&mut self, remove: &[u64], add: impl IntoIterator<Item = (u64, T)>) -> Result<()> {
        let mut add = add.into_iter().peekable();
        if remove.is_empty() && add.peek().is_none() {
            return Ok(());
        }
        let path = self.path();
        let guard = path.map(seal::lock_to_write).transpose()?;
        let write = || -> tantivy::Result<()> {
            let cores = std::thread::available_parallelism().map_or(1, usize::from).min(4);
            let threads = if add.size_hint().0 < MANY { 1 } else { cores };
            let options = IndexWriterOptions::builder()
                .num_worker_threads(threads)
                .memory_budget_per_thread(WRITER_BUDGET)
                .num_merge_threads(1)
                .build();
            let mut writer: IndexWriter = self.index.writer_with_options(options)?;
            for &key in remove {
                writer.delete_term(Term::from_field_u64(self.key, key));
            }
            for (key, text) in add {
                writer.delete_term(Term::from_field_u64(self.key, key));
                let mut document = TantivyDocument::new();
                document.add_u64(self.key, key);
                document.add_text(self.text, text.as_ref());
                writer.add_document(document)?;
            }
            writer.commit()?;
            writer.wait_merging_threads()
        };
        contain(path, || write().map_err(|e| failed(path, e)))?;
        if let Some(Place { directory, seal }) = &mut self.place {
            *seal = Seal::write(directory, Some(seal))?;
        }
        drop(guard);
        contain(self.path(), || self.reader.reload().map_err(|e| failed(self.path(), e)))
    }

    /// The `k` texts that fit `query` best, best first. A text without any word of the query is never found, so there
    /// may be fewer; a query without words finds nothing. Of more than 1,024 different words the first are looked up.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn search(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>> {
        let query = self.query(query);
        if query.is_empty() || k == 0 {
            return Ok(Vec::new());
        }
        let search = || -> tantivy::Result<Vec<Hit>> {
            let searcher = self.reader.searcher();
            let weight = BooleanQuery::union(query).weight(EnableScoring::enabled_from_searcher(&searcher))?;
            let mut best = TopK::new(k);
            for segment in searcher.segment_readers() {
                let keys = segment.fast_fields().u64("key")?;
                weight.for_each_pruning(best.threshold(), segment, &mut |text, score| {
                    if !segment.is_deleted(text)
                        && let Some(key) = keys.first(text)
                        && filter.is_none_or(|filter| filter(key))
                    {
                        best.push(Hit { key, score });
                    }
                    best.threshold()
                })?;
            }
            Ok(best.into_hits())
        };
        contain(self.path(), || search().map_err(|e| failed(self.path(), e)))
    }

    /// A clause for each different word; a word that stands several times counts as often.
    fn query(&self, query: &str) -> Vec<Box<dyn Query>> {
        let mut counts: BTreeMap<String, f32> = BTreeMap::new();
        let mut analyzer = analyzer::analyzer();
        let mut words = analyzer.token_stream(query);
        while counts.len() < QUERY_TERMS && words.advance() {
            *counts.entry(words.token().text.clone()).or_default() += 1.0;
        }
        let clause = |(word, count): (String, f32)| -> Box<dyn Query> {
            let term = TermQuery::new(Term::from_field_text(self.text, &word), IndexRecordOption::WithFreqs);
            if count > 1.0 { Box::new(BoostQuery::new(Box::new(term), count)) } else { Box::new(term) }
        };
        counts.into_iter().map(clause).collect()
    }

    fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.directory.as_path())
    }
}

impl Retriever for KeywordIndex {
    fn retrieve(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>> {
        self.search(query, k, filter)
    }
}

fn schema() -> Schema {
    let words =
        TextFieldIndexing::default().set_tokenizer(analyzer::NAME).set_index_option(IndexRecordOption::WithFreqs);
    let mut schema = Schema::builder();
    schema.add_u64_field("key", INDEXED | FAST);
    schema.add_text_field("text", TextOptions::default().set_indexing_options(words));
    schema.build()
}

/// Removes an index's files, and nothing that is not one.
fn empty(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let ours = |name: &str| {
        let stem = name.split('.').next().unwrap_or_default();
        let segment = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit());
        segment
            || name == "meta.json"
            || name.starts_with("seal.")
            || name.starts_with(".managed")
            || name.starts_with(".tantivy")
            || name.starts_with(".tmp")
    };
    for file in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = file.map_err(Error::io("read", directory))?.path();
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(ours) {
            return Err(Error::malformed(directory, format!("{} is no file of a keyword index", path.display())));
        }
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Runs tantivy's code, which asserts what it believes of its files: a panic becomes an error.
fn contain<T>(path: Option<&Path>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let detail = format!("the search library gave up: {}", said.unwrap_or("no reason given"));
        Err(Error::Damaged { path: path.unwrap_or(Path::new("(memory)")).to_owned(), detail })
    })
}

fn failed(path: Option<&Path>, error: TantivyError) -> Error {
    let path = path.unwrap_or(Path::new("(memory)"));
    match error {
        TantivyError::IoError(source) => {
            Error::io("use the keyword index", path)(std::io::Error::new(source.kind(), source.to_string()))
        }
        error => Error::Keyword { path: path.to_owned(), detail: error.to_string() },
    }
}

use crate::{DenseIndex, Embedder, Result};

/// Something found, and how well it fits. Scores of different retrievers do not compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The key under which the passage (or document) was added.
    pub key: u64,
    /// Higher is better.
    pub score: f32,
}

/// Says of a key whether it may be found, for instance whether it belongs to a group.
pub type Filter<'a> = &'a (dyn Fn(u64) -> bool + Sync);

/// Finds passages for a question.
pub trait Retriever: Send + Sync {
    /// The `k` best passages for `query`, best first; fewer if there are not so many.
    ///
    /// # Errors
    /// What embedding or searching the query met.
    fn retrieve(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>>;
}

/// Finds the passages whose vectors lie nearest to the query's.
#[derive(Clone, Copy)]
pub struct DenseRetriever<'a> {
    /// Makes the query's vector; the same that made the index's.
    pub embedder: &'a Embedder,
    /// The passages' vectors.
    pub index: &'a DenseIndex,
}

impl Retriever for DenseRetriever<'_> {
    fn retrieve(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>> {
        let query = self.embedder.embed_query(query)?;
        self.index.search_filtered(&query, k, filter)
    }
}

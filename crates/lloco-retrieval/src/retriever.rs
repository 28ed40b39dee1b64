use crate::{DenseIndex, Embedder, Result, reciprocal_rank_fusion};

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
    /// `None` compares the query with every vector. Otherwise only so many are compared, those whose signs agree most
    /// with the query's: several times faster among a million, and now and then a neighbour is missed
    /// ([`DenseIndex::search_near`]).
    pub candidates: Option<usize>,
}

impl Retriever for DenseRetriever<'_> {
    fn retrieve(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>> {
        let query = self.embedder.embed_query(query)?;
        match self.candidates {
            None => self.index.search_filtered(&query, k, filter),
            Some(candidates) => self.index.search_near(&query, k, candidates, filter),
        }
    }
}

/// Joins the rankings of several retrievers by [reciprocal-rank fusion](reciprocal_rank_fusion).
///
/// ```
/// use lloco_retrieval::{Filter, Hit, HybridRetriever, Result, Retriever};
///
/// struct Fixed(Vec<u64>);
/// impl Retriever for Fixed {
///     fn retrieve(&self, _: &str, k: usize, _: Option<Filter<'_>>) -> Result<Vec<Hit>> {
///         Ok(self.0.iter().take(k).map(|&key| Hit { key, score: 1.0 }).collect())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let (dense, keyword) = (Fixed(vec![1, 2, 3]), Fixed(vec![9, 2]));
/// let hits = HybridRetriever { retrievers: &[&dense, &keyword] }.retrieve("pump", 2, None)?;
/// assert_eq!(hits[0].key, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct HybridRetriever<'a> {
    /// Whose rankings are joined, all with equal weight.
    pub retrievers: &'a [&'a dyn Retriever],
}

impl HybridRetriever<'_> {
    /// Hits that each retriever is asked for at least: what stands far down in one ranking may stand high in another.
    pub const DEPTH: usize = 100;
}

impl Retriever for HybridRetriever<'_> {
    fn retrieve(&self, query: &str, k: usize, filter: Option<Filter<'_>>) -> Result<Vec<Hit>> {
        let ranking = |retriever: &&dyn Retriever| retriever.retrieve(query, k.max(Self::DEPTH), filter);
        let rankings = self.retrievers.iter().map(ranking).collect::<Result<Vec<_>>>()?;
        Ok(reciprocal_rank_fusion(&rankings, k))
    }
}

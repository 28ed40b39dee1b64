//! How a forward pass is run.

use crate::{KvCache, LinearAdapter, Packing};

/// Which rows of the last hidden state are wanted. The last layer computes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// All of them.
    #[default]
    All,
    /// The newest `n`, at least one.
    Last(usize),
}

/// How to run a forward pass. The default: causal, no cache, no adapter, no padding, all layers, all rows.
#[derive(Default)]
#[must_use]
pub struct Pass<'a> {
    pub(crate) cache: Option<&'a mut KvCache>,
    pub(crate) adapter: Option<&'a dyn LinearAdapter>,
    pub(crate) padding: &'a [usize],
    pub(crate) packing: Option<&'a Packing>,
    pub(crate) rows: Rows,
    pub(crate) kept: Option<usize>,
    pub(crate) layers: Option<usize>,
    pub(crate) bidirectional: bool,
}

impl<'a> Pass<'a> {
    /// The default pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads behind the cache's positions and appends to them.
    pub fn cache(mut self, cache: &'a mut KvCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Of the new positions, leaves the first `n` in the cache and forgets the others once they are read.
    pub fn keep(mut self, n: usize) -> Self {
        self.kept = Some(n);
        self
    }

    /// Adds an adapter's terms to the linear projections.
    pub fn adapter(mut self, adapter: &'a dyn LinearAdapter) -> Self {
        self.adapter = Some(adapter);
        self
    }

    /// Left padding of each sequence, counted from the start of the cache; empty for none. Padded positions are
    /// never attended to, and position 0 is the first one behind them.
    pub fn padding(mut self, padding: &'a [usize]) -> Self {
        self.padding = padding;
        self
    }

    /// Reads the rows of a batch of one as several sequences. Goes without cache and padding, and returns all rows.
    pub fn packing(mut self, packing: &'a Packing) -> Self {
        self.packing = Some(packing);
        self
    }

    /// Runs only the model's first `n` layers, at least one. Not with a cache.
    pub fn layers(mut self, n: usize) -> Self {
        self.layers = Some(n);
        self
    }

    /// Lets each position see all others of its sequence, those behind it too. Goes without cache, padding and packing.
    pub fn bidirectional(mut self, bidirectional: bool) -> Self {
        self.bidirectional = bidirectional;
        self
    }

    /// Returns only the newest `n` rows.
    pub fn last_rows(mut self, n: usize) -> Self {
        self.rows = Rows::Last(n);
        self
    }
}

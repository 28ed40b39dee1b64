//! Different adapters for the rows of one batch.

use std::{ops::Range, sync::Arc};

use burn::tensor::{Tensor, s};
use lloco_decoder::{LinearAdapter, SavedModule, Site};

use crate::{Adapter, Error, Result};

/// One adapter, or none, for each sequence of a batch: equal to running the sequences one by one.
///
/// Neighbouring sequences that share an adapter (the same `Arc`) are computed together, so order a batch by adapter.
#[derive(Debug, Clone)]
pub struct AdapterBatch {
    runs: Vec<(Range<usize>, Option<Arc<Adapter>>)>,
}

impl AdapterBatch {
    /// The adapters of a batch's sequences, in order.
    ///
    /// # Errors
    /// [`Error::BatchConflict`] when `embed_tokens` or `lm_head` would have to differ between sequences.
    pub fn new(adapters: impl IntoIterator<Item = Option<Arc<Adapter>>>) -> Result<Self> {
        let mut runs: Vec<(Range<usize>, Option<Arc<Adapter>>)> = Vec::new();
        for (row, adapter) in adapters.into_iter().enumerate() {
            match runs.last_mut() {
                Some((rows, last)) if same(last.as_ref(), adapter.as_ref()) => rows.end = row + 1,
                _ => runs.push((row..row + 1, adapter)),
            }
        }
        for module in ["embed_tokens", "lm_head"] {
            let holds = |adapter: &Option<Arc<Adapter>>| adapter.as_ref().is_some_and(|a| a.saved(module).is_some());
            if runs.len() > 1 && runs.iter().any(|(_, adapter)| holds(adapter)) {
                return Err(Error::BatchConflict { module });
            }
        }
        Ok(Self { runs })
    }
}

fn same(a: Option<&Arc<Adapter>>, b: Option<&Arc<Adapter>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

impl LinearAdapter for AdapterBatch {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        match self.runs.as_slice() {
            [(_, Some(adapter))] => adapter.apply(site, input, output),
            _ if !self.adapts(site) => output,
            runs => {
                let parts = runs.iter().map(|(rows, adapter)| {
                    let part = |x: &Tensor<3>| x.clone().slice(s![rows.clone(), .., ..]);
                    match adapter {
                        Some(adapter) => adapter.apply(site, &part(input), part(&output)),
                        None => part(&output),
                    }
                });
                Tensor::cat(parts.collect(), 0)
            }
        }
    }

    fn adapts(&self, site: Site) -> bool {
        self.runs.iter().any(|(_, adapter)| adapter.as_ref().is_some_and(|adapter| adapter.adapts(site)))
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        match self.runs.as_slice() {
            [(_, adapter)] => adapter.as_ref()?.replaced(module),
            _ => None,
        }
    }
}

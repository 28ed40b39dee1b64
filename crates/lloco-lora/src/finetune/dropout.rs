//! Dropout before the first factor, in training only.

use burn::tensor::Tensor;
use lloco_decoder::{LinearAdapter, SavedModule, Site, dropout, mix};

use crate::Adapter;

/// An adapter whose input loses a share of its elements, `lora_dropout` of its configuration; the others are scaled up
/// to make good.
///
/// Which ones is a function of seed and site alone, so that a repeated pass drops the same.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// The adapter.
    pub adapter: &'a Adapter,
    /// Another seed drops others.
    pub seed: u64,
}

impl LinearAdapter for Dropout<'_> {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        if !self.adapts(site) {
            return output;
        }
        let place = (site.layer * 8 + site.projection as usize) as u64;
        let seed = mix(self.seed ^ mix(place));
        let input = dropout(input.clone(), self.adapter.config().lora_dropout, seed);
        self.adapter.apply(site, &input, output)
    }

    fn adapts(&self, site: Site) -> bool {
        self.adapter.adapts(site)
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        self.adapter.replaced(module)
    }
}

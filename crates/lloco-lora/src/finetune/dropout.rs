//! Dropout before the first factor, in training only.

use burn::tensor::{Tensor, TensorData};
use lloco_decoder::{LinearAdapter, SavedModule, Site};

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
    fn delta(&self, site: Site, input: &Tensor<3>) -> Option<Tensor<3>> {
        if self.adapter.config().lora_dropout == 0.0 {
            return self.adapter.delta(site, input);
        }
        if !self.adapter.factors.contains_key(&site) {
            return None;
        }
        let data = TensorData::new(self.mask(site, input.dims().iter().product()), input.dims());
        let mask = Tensor::<3>::from_data(data, &input.device().inner()).cast(input.dtype());
        let mask = if input.is_autodiff() { mask.autodiff() } else { mask };
        self.adapter.delta(site, &(input.clone() * mask))
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        self.adapter.replaced(module)
    }
}

impl Dropout<'_> {
    /// `len` factors, 0 or `1 / (1 - rate)`, four from each 64-bit word.
    fn mask(&self, site: Site, len: usize) -> Vec<f32> {
        let dropped = (self.adapter.config().lora_dropout * 65536.0).round();
        let kept = (65536.0 / (65536.0 - dropped).max(1.0)) as f32;
        let site = (site.layer * 8 + site.projection as usize) as u64;
        let mut state = mix(self.seed ^ mix(site));
        let mut mask = Vec::with_capacity(len + 3);
        while mask.len() < len {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let word = mix(state);
            let quarters = [word, word >> 16, word >> 32, word >> 48].map(|word| f64::from(word as u16));
            mask.extend(quarters.map(|draw| if draw < dropped { 0.0 } else { kept }));
        }
        mask.truncate(len);
        mask
    }
}

/// Well-mixed bits of a number, for seeds: the output function of SplitMix64 (Steele, Lea, Flood 2014).
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

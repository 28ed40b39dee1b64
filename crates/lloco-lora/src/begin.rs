//! A new adapter that begins as another one, which may be smaller.

use burn::tensor::Tensor;

use crate::{Adapter, Error, LoraConfig, Result, adapter::Factors};

impl Adapter {
    /// This adapter, as [`init`](Self::init) makes it, with the factors of `other` in it: it adds to the model what `other`
    /// adds, and has more to learn with.
    ///
    /// Where its rank is the larger one, its own rows of A stand below those of `other`, beside the zeros in B; the scale
    /// of `other` goes into B. Projections that `other` does not adapt stay as they are, and so do modules saved as a whole:
    /// those of `other` are left out.
    ///
    /// # Errors
    /// [`Error::Setting`] with both shapes where `other` has a larger rank, or adapts a projection that this one does not;
    /// [`Error::ShapeMismatch`] for an adapter of another model.
    pub fn beginning_as(mut self, other: &Self) -> Result<Self> {
        for (site, begun) in &other.factors {
            let smaller = || {
                let expected =
                    format!("at least {}, the shape of the adapter as which it begins", described(&other.config));
                Error::setting("lora", format!("{} at {}", described(&self.config), site.path()), expected)
            };
            let Some(own) = self.factors.get(site) else { return Err(smaller()) };
            let ([rank, input], [output, _]) = (begun.a.dims(), begun.b.dims());
            let ([own_rank, own_input], [own_output, _]) = (own.a.dims(), own.b.dims());
            if (input, output) != (own_input, own_output) {
                return Err(Error::ShapeMismatch {
                    path: "the adapter as which a new one begins".into(),
                    name: site.path(),
                    expected: vec![own_output, own_input],
                    found: vec![output, input],
                });
            }
            if rank > own_rank {
                return Err(smaller());
            }
            let factors = joined(own, begun, own_rank - rank);
            self.factors.insert(*site, factors);
        }
        Ok(self)
    }
}

/// The factors of `begun`, and behind them the last `more` ranks of `own`, at the scale of `own`.
fn joined(own: &Factors, begun: &Factors, more: usize) -> Factors {
    let device = own.a.device();
    let (mut a, mut b) = (begun.a.clone().to_device(&device), begun.b.clone().to_device(&device));
    if begun.scale != own.scale {
        b = b.mul_scalar(begun.scale / own.scale);
    }
    if more > 0 {
        let [rank, _] = a.dims();
        a = Tensor::cat(vec![a, own.a.clone().narrow(0, rank, more)], 0);
        b = Tensor::cat(vec![b, own.b.clone().narrow(1, rank, more)], 1);
    }
    Factors { a, b, scale: own.scale }
}

/// A shape in words.
fn described(config: &LoraConfig) -> String {
    let layers = config.layers_to_transform.as_ref().map(|layers| format!(" of layers {layers:?}"));
    format!("rank {} on {}{}", config.r, config.target_modules.describe(), layers.unwrap_or_default())
}

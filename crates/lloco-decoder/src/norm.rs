//! RMSNorm and its weights.

use burn::tensor::{Device, Tensor};

use crate::{Checkpoint, Result, ops};

/// RMSNorm over the last dimension (arXiv 1910.07467).
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) gamma: Tensor<1>,
    pub(crate) eps: f64,
}

impl Norm {
    /// Reads the tensor `name` `[width]`.
    pub(crate) fn load(checkpoint: &Checkpoint, name: &str, width: usize, eps: f64, device: &Device) -> Result<Self> {
        Ok(Self { gamma: Tensor::from_data(checkpoint.tensor(name, &[width])?, device), eps })
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::rms_norm(x, &self.gamma, self.eps)
    }
}

//! From pooled hidden states to rows that the model reads as it reads embeddings.

use lloco_decoder::{
    Decoder,
    burn::tensor::{Device, Tensor, TensorData, activation::silu, s},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::Result;

/// `x + W2 silu(W1 x)` of the normed state `x`, then scaled to the norm of the model's embeddings (LCLM, ARC-Encoder):
/// hidden states behind the final norm are an order of magnitude larger than what the first layer expects.
///
/// `W2` starts at zero, so that training starts from the pooled state itself.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// `[1, hidden]`, the weight of the RMSNorm.
    pub(crate) norm: Tensor<2>,
    /// W1, `[hidden, hidden]`.
    pub(crate) up: Tensor<2>,
    /// W2, `[hidden, hidden]`.
    pub(crate) down: Tensor<2>,
    /// A learned factor for each ratio, `[ratios, 1]`.
    pub(crate) gain: Tensor<2>,
}

impl Connector {
    /// Where training starts.
    pub(crate) fn init(hidden: usize, ratios: usize, seed: u64, device: &Device) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let bound = (3.0 / hidden as f32).sqrt();
        let values: Vec<f32> = (0..hidden * hidden).map(|_| rng.random_range(-bound..bound)).collect();
        Self {
            norm: Tensor::ones([1, hidden], device),
            up: Tensor::from_data(TensorData::new(values, [hidden, hidden]), device),
            down: Tensor::zeros([hidden, hidden], device),
            gain: Tensor::ones([ratios, 1], device),
        }
    }

    /// Pooled states `[n, hidden]` -> summary vectors `[n, hidden]` with rows of root mean square `scale` times the
    /// gain of the ratio.
    pub(crate) fn forward(&self, pooled: Tensor<2>, ratio: usize, scale: f64) -> Tensor<2> {
        let [rows, hidden] = pooled.dims();
        let x = normed(pooled) * self.norm.clone().expand([rows, hidden]);
        let y = x.clone() + silu(x.matmul(self.up.clone().transpose())).matmul(self.down.clone().transpose());
        let gain = self.gain.clone().slice(s![ratio..ratio + 1, ..]).mul_scalar(scale);
        normed(y) * gain.expand([rows, hidden])
    }

    /// The tensors by name.
    pub(crate) fn parameters(&self) -> [(&'static str, &Tensor<2>); 4] {
        [
            ("connector.norm.weight", &self.norm),
            ("connector.up.weight", &self.up),
            ("connector.down.weight", &self.down),
            ("connector.gain.weight", &self.gain),
        ]
    }

    /// The connector with each tensor passed through `change`.
    pub(crate) fn map(&self, mut change: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        let [norm, up, down, gain] = self.parameters().map(|(name, tensor)| change(name, tensor.clone()));
        Self { norm, up, down, gain }
    }
}

/// Rows `[n, width]` divided by their root mean square.
fn normed(x: Tensor<2>) -> Tensor<2> {
    let mean_square = x.clone().square().mean_dim(1);
    let dims = x.dims();
    x / (mean_square + 1e-6).sqrt().expand(dims)
}

/// The root mean square of the model's token embeddings, averaged over the vocabulary.
pub(crate) fn embedding_scale(decoder: &Decoder) -> Result<f64> {
    let ids: Vec<u32> = (0..decoder.config().vocab_size as u32).collect();
    let mut sum = 0.0;
    for ids in ids.chunks(4096) {
        let rows: Tensor<2> = decoder.embed(ids)?.squeeze_dim(0);
        let rms = rows.square().mean_dim(1).sqrt().sum();
        sum += lloco_lora::durable::values("embeddings", rms)?.first().copied().map_or(0.0, f64::from);
    }
    Ok(sum / ids.len() as f64)
}

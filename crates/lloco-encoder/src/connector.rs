//! From the states of a window's tokens to a row that the model reads as it reads an embedding.

use lloco_decoder::{
    Decoder,
    burn::tensor::{
        Device, Tensor, TensorData,
        activation::{silu, softmax},
        s,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::Result;

/// `e + W2 silu(W1 x)` scaled to the norm of the model's embeddings (LCLM, ARC-Encoder), where `x` is the normed average
/// of a window's hidden states and `e` that of its tokens' embeddings, less the center of all. A learned score weighs the
/// tokens of a window in both averages.
///
/// `W2` starts at zero, the score at how rare a token is, and the center at the mean embedding of the text to learn from:
/// training starts from what sets a window's embeddings apart, of which the model can read something at once. The published connectors
/// start from `x`, which points elsewhere than embeddings do (their cosine is near 0 in every layer), and have to learn
/// the way back first. Without the center, two thirds of the mean of 16 embeddings are the same in every window.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// `[1, hidden]`: a token's score is its product with the token's hidden state, divided by `sqrt(hidden)`.
    pub(crate) score: Tensor<2>,
    /// `[1, hidden]`, what the embeddings of all windows have in common.
    pub(crate) center: Tensor<2>,
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
            score: Tensor::zeros([1, hidden], device),
            center: Tensor::zeros([1, hidden], device),
            norm: Tensor::ones([1, hidden], device),
            up: Tensor::from_data(TensorData::new(values, [hidden, hidden]), device),
            down: Tensor::zeros([hidden, hidden], device),
            gain: Tensor::ones([ratios, 1], device),
        }
    }

    /// Hidden states and embeddings of windows' tokens, each `[n, window, hidden]` -> summary vectors `[n, hidden]` with
    /// rows of root mean square `scale` times the gain of the ratio, of which `ratio` is the index.
    pub(crate) fn forward(&self, states: Tensor<3>, embedded: Tensor<3>, ratio: usize, scale: f64) -> Tensor<2> {
        let [rows, window, hidden] = states.dims();
        let score = self.score.clone().mul_scalar((hidden as f64).powf(-0.5)).unsqueeze::<3>();
        let weights = softmax((states.clone() * score.expand([rows, window, hidden])).sum_dim(2), 1);
        let average = |tokens: Tensor<3>| {
            let weighted = tokens * weights.clone().expand([rows, window, hidden]);
            weighted.sum_dim(1).squeeze_dim::<2>(1)
        };
        let x = normed(average(states)) * self.norm.clone().expand([rows, hidden]);
        let own = average(embedded) - self.center.clone().expand([rows, hidden]);
        let y = normed(own) + silu(x.matmul(self.up.clone().transpose())).matmul(self.down.clone().transpose());
        let gain = self.gain.clone().slice(s![ratio..ratio + 1, ..]).mul_scalar(scale);
        normed(y) * gain.expand([rows, hidden])
    }

    /// The tensors by name.
    pub(crate) fn parameters(&self) -> [(&'static str, &Tensor<2>); 6] {
        [
            ("connector.score.weight", &self.score),
            ("connector.center.weight", &self.center),
            ("connector.norm.weight", &self.norm),
            ("connector.up.weight", &self.up),
            ("connector.down.weight", &self.down),
            ("connector.gain.weight", &self.gain),
        ]
    }

    /// The connector with each tensor passed through `change`.
    pub(crate) fn map(&self, mut change: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        let [score, center, norm, up, down, gain] =
            self.parameters().map(|(name, tensor)| change(name, tensor.clone()));
        Self { score, center, norm, up, down, gain }
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

//! Where a pooling run starts: what the text to learn from says about its tokens, before any step.

use std::collections::HashMap;

use lloco_decoder::{
    Decoder,
    burn::tensor::{FloatDType, Tensor, TensorData},
};
use lloco_lora::durable::values;

use super::sample::Sample;
use crate::{PooledConfig, Result};

/// The mean embedding of the samples' tokens, `[1, hidden]`.
pub(super) fn mean_embedding(decoder: &Decoder, samples: &[Sample]) -> Result<Tensor<2>> {
    let mut means = Vec::with_capacity(samples.len());
    for sample in samples {
        means.push(decoder.embed(&sample.context)?.cast(FloatDType::F32).mean_dim(1).squeeze_dim::<2>(1));
    }
    Ok(Tensor::cat(means, 0).mean_dim(0))
}

/// The exponent of a token's frequency in its weight within a window.
const EXPONENT: f64 = 0.4;
/// The share of the regression's own scale that is added to its diagonal.
const RIDGE: f64 = 1e-3;
/// Steps of the conjugate gradients; the fit no longer changes visibly behind half of them.
const ITERATIONS: usize = 100;

/// The score that gives a token of frequency `p` about the weight `p^-0.4` within its window, `[1, hidden]`.
///
/// Half of a text's tokens are articles, commas and the like, which the model guesses by itself; with equal weights they
/// are half of every summary vector. How rare a token is can be read from the states of the first layers by a linear
/// map (ridge regression over the samples, solved by conjugate gradients), so that training starts from vectors that
/// are mostly names and other content. Weights by frequency for averages of embeddings: Arora et al., "A simple but
/// tough-to-beat baseline for sentence embeddings", ICLR 2017.
pub(super) fn rarity_score(decoder: &Decoder, config: &PooledConfig, samples: &[Sample]) -> Result<Tensor<2>> {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for &id in samples.iter().flat_map(|sample| &sample.context) {
        *counts.entry(id).or_default() += 1;
    }
    let tokens = counts.values().sum::<usize>().max(1) as f64;
    let rarity = |id: &u32| (tokens / counts.get(id).copied().unwrap_or(1) as f64).ln();
    let mean = samples.iter().flat_map(|sample| &sample.context).map(rarity).sum::<f64>() / tokens;

    let hidden = decoder.config().hidden_size;
    let (mut square, mut toward) = (Tensor::<2>::zeros([hidden, hidden], decoder.device()), None);
    // Read as the encoder reads, one segment at a time.
    for segment in samples.iter().flat_map(|sample| sample.context.chunks(config.segment_length.max(1))) {
        let states: Tensor<2> = decoder.forward(decoder.embed(segment)?, config.pass())?.squeeze_dim(0);
        let states = states.cast(FloatDType::F32);
        let wanted: Vec<f32> = segment.iter().map(|id| (rarity(id) - mean) as f32).collect();
        let wanted = Tensor::<2>::from_data(TensorData::new(wanted, [segment.len(), 1]), decoder.device());
        let found = states.clone().transpose().matmul(wanted);
        toward = Some(toward.map_or(found.clone(), |sum: Tensor<2>| sum + found));
        square = square + states.clone().transpose().matmul(states);
    }
    let Some(toward) = toward else { return Ok(Tensor::zeros([1, hidden], decoder.device())) };
    let fitted = solve(square, toward)?;
    Ok(fitted.transpose().mul_scalar(EXPONENT * (hidden as f64).sqrt()))
}

/// `x` of `A x = b` for a symmetric, positive `A` `[n, n]` and `b` `[n, 1]`, by conjugate gradients over the diagonal.
fn solve(a: Tensor<2>, b: Tensor<2>) -> Result<Tensor<2>> {
    let [n, _] = b.dims();
    let diagonal = (a.clone() * Tensor::<2>::eye(n, &a.device())).sum_dim(1);
    let scale = (diagonal + 1e-12).sqrt();
    let a = a / scale.clone().expand([n, n]) / scale.clone().transpose().expand([n, n]);
    let mut rest = b / scale.clone();
    let (mut x, mut along) = (rest.zeros_like(), rest.clone());
    let product = |a: Tensor<2>, b: Tensor<2>| -> Result<f64> {
        Ok(values("the score's fit", (a * b).sum())?.first().copied().map_or(0.0, f64::from))
    };
    let mut size = product(rest.clone(), rest.clone())?;
    for _ in 0..ITERATIONS {
        let pushed = a.clone().matmul(along.clone()) + along.clone().mul_scalar(RIDGE);
        let curve = product(along.clone(), pushed.clone())?;
        if size <= f64::EPSILON || curve <= f64::EPSILON {
            break;
        }
        x = x + along.clone().mul_scalar(size / curve);
        rest = rest - pushed.mul_scalar(size / curve);
        let next = product(rest.clone(), rest.clone())?;
        along = rest.clone() + along.mul_scalar(next / size);
        size = next;
    }
    Ok(x / scale)
}

#[cfg(test)]
mod tests {
    use lloco_decoder::burn::tensor::Device;

    use super::*;

    #[test]
    fn conjugate_gradients_solve() {
        let device = Device::default();
        let a = Tensor::<2>::from_data([[400.0, 2.0, 0.0], [2.0, 3.0, 1.0], [0.0, 1.0, 0.5]], &device);
        let x = Tensor::<2>::from_data([[1.0], [-2.0], [3.0]], &device);
        let found = solve(a.clone(), a.matmul(x)).unwrap().into_data().try_to_vec::<f32>().unwrap();
        for (found, wanted) in found.into_iter().zip([1.0, -2.0, 3.0]) {
            assert!((found - wanted).abs() < 0.1, "{found} is not {wanted}");
        }
    }
}

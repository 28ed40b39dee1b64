//! Cross entropy over the rows whose token is predicted, a few rows at a time.

use burn::tensor::{Tensor, s};
use lloco_decoder::{Decoder, LinearAdapter, NoAdapter, backward};

use super::NamedGradients;
use crate::{Adapter, Result, tensor_file};

/// Scores in one piece, at most: 64 MB as f32, whatever the number of rows.
const PIECE: usize = 1 << 24;

/// What [`cross_entropy`] finds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Scored {
    /// `-ln p` of each target.
    pub nll: Vec<f32>,
    /// A scalar whose `backward` carries the gradient of the loss into the hidden rows; `None` where they are not
    /// tracked.
    pub surrogate: Option<Tensor<1>>,
    /// Gradients of the output head, where the adapter trains one.
    pub gradients: NamedGradients,
}

/// The loss `weight * sum(-ln p(target))` of hidden rows `[n, hidden]` after the final norm, one target a row.
///
/// Scores `[n, vocab]` would be the largest tensor of a training step. Here each piece of them is made, differentiated
/// and dropped before the next: where `hidden` is tracked, its gradient `g` is known piece by piece, and
/// `sum(hidden * g)` then stands for the loss in `backward`.
///
/// `adapter` may replace the output head, and train it.
///
/// # Errors
/// When rows and targets do not fit the model or each other, or values cannot be read back from the device.
pub fn cross_entropy(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    hidden: Tensor<2>,
    targets: &[u32],
    weight: f64,
) -> Result<Scored> {
    let tracked = hidden.is_autodiff();
    let mut scored =
        Scored { nll: Vec::with_capacity(targets.len()), surrogate: None, gradients: NamedGradients::default() };
    let head: &dyn LinearAdapter = match adapter {
        Some(adapter) => adapter,
        None => &NoAdapter,
    };
    let mut slopes = Vec::new();
    let rows = (PIECE / decoder.config().vocab_size.max(1)).max(1);
    for (index, targets) in targets.chunks(rows).enumerate() {
        let (start, n) = (index * rows, targets.len());
        let mut piece = hidden.clone().inner().slice(s![start..start + n, ..]);
        if tracked {
            piece = piece.autodiff().require_grad();
        }
        let nll = decoder.losses(piece.clone(), targets, head)?;
        scored.nll.extend(tensor_file::values("the loss", nll.clone())?);
        if tracked {
            let mut gradients = backward(&nll.sum().mul_scalar(weight));
            slopes.extend(piece.grad_remove(&mut gradients));
            if let Some(adapter) = adapter {
                scored.gradients.add(adapter.gradients(&mut gradients));
            }
        }
    }
    if !slopes.is_empty() {
        scored.surrogate = Some((hidden * Tensor::cat(slopes, 0).autodiff()).sum());
    }
    Ok(scored)
}

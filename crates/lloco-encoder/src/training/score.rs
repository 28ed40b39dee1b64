//! Losses of single rows, and their slopes: how a row's loss changes with its hidden state.
//!
//! Knowing them row by row, several losses on the same rows may be weighted after they are known, as the binding loss
//! needs.

use lloco_decoder::{
    Decoder, backward,
    burn::tensor::{Tensor, s},
};
use lloco_lora::{
    durable::values,
    finetune::{RowLosses, cross_entropy},
};

use crate::Result;

/// Scores in one piece, at most.
const PIECE: usize = 1 << 24;

/// `-ln p(target)` of hidden rows `[n, hidden]`; slopes where `hidden` is tracked.
pub(crate) fn nll(decoder: &Decoder, hidden: &Tensor<2>, targets: &[u32]) -> Result<RowLosses> {
    if !hidden.is_autodiff() {
        let losses = cross_entropy(decoder, None, hidden.clone(), targets, 1.0)?.nll;
        return Ok(RowLosses { losses, slopes: None });
    }
    let leaf = hidden.clone().inner().autodiff().require_grad();
    let scored = cross_entropy(decoder, None, leaf.clone(), targets, 1.0)?;
    let slopes = scored.surrogate.and_then(|surrogate| leaf.grad_remove(&mut backward(&surrogate)));
    Ok(RowLosses { losses: scored.nll, slopes })
}

/// How many of the targets are what the model finds most likely, of hidden rows `[n, hidden]`.
pub(crate) fn hits(decoder: &Decoder, hidden: &Tensor<2>, targets: &[u32]) -> Result<usize> {
    let [_, width] = hidden.dims();
    let rows = (PIECE / decoder.config().vocab_size.max(1)).max(1);
    let mut hits = 0;
    for (index, targets) in targets.chunks(rows).enumerate() {
        let (start, n) = (index * rows, targets.len());
        let piece = hidden.clone().inner().slice(s![start..start + n, ..]).reshape([1, n, width]);
        let logits: Tensor<2> = decoder.logits(piece).reshape([n as i64, -1]);
        let best = values("the likeliest tokens", logits.argmax(1).float())?;
        hits += best.iter().zip(targets).filter(|&(&best, &target)| best == target as f32).count();
    }
    Ok(hits)
}

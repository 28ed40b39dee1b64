//! Distillation: being as sure of each token as the same model is that reads the text itself.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax, s};
use lloco_decoder::{Decoder, LinearAdapter, backward};

use crate::{Result, tensor_file::values};

/// Scores in one piece, at most.
const PIECE: usize = 1 << 24;

/// A loss of each row, and its slope: how it changes with the row's hidden state.
///
/// Knowing them row by row, several losses on the same rows may be weighted after they are known.
#[derive(Debug)]
pub struct RowLosses {
    /// The losses.
    pub losses: Vec<f32>,
    /// `d losses[i] / d hidden[i]`, `[n, hidden]`, where gradients are wanted.
    pub slopes: Option<Tensor<2>>,
}

impl RowLosses {
    /// A scalar whose `backward` carries `sum(weights[i] * losses[i])` into the hidden rows; `None` where gradients were
    /// not wanted.
    pub fn surrogate(self, hidden: Tensor<2>, weights: &[f32]) -> Option<Tensor<1>> {
        let slopes = self.slopes?;
        let dims = slopes.dims();
        let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [weights.len(), 1]), &slopes.device());
        Some((hidden * (slopes * weights.expand(dims)).autodiff()).sum())
    }
}

/// The likeliest tokens of some rows under a model that has more to read, and their probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Teacher {
    /// Token ids, `top` a row.
    ids: Vec<i64>,
    /// Their probabilities.
    p: Vec<f32>,
    top: usize,
}

impl Teacher {
    /// What the model predicts from hidden rows `[n, hidden]`: its `top` likeliest tokens.
    ///
    /// # Errors
    /// When values cannot be read back from the device.
    pub fn new(decoder: &Decoder, hidden: &Tensor<2>, top: usize) -> Result<Self> {
        let [n, width] = hidden.dims();
        let vocab = decoder.config().vocab_size;
        let top = top.min(vocab);
        let mut teacher = Self { ids: Vec::with_capacity(n * top), p: Vec::with_capacity(n * top), top };
        let rows = (PIECE / vocab.max(1)).max(1);
        for start in (0..n).step_by(rows) {
            let count = rows.min(n - start);
            let piece = hidden.clone().inner().slice(s![start..start + count, ..]).reshape([1, count, width]);
            let logits: Tensor<2> = decoder.logits(piece).reshape([count, vocab]);
            let log_p = values("the full text's predictions", log_softmax(logits, 1))?;
            let mut order: Vec<u32> = Vec::with_capacity(vocab);
            for row in log_p.chunks_exact(vocab) {
                order.clear();
                order.extend(0..vocab as u32);
                let by_p = |&a: &u32, &b: &u32| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b));
                if top < vocab {
                    order.select_nth_unstable_by(top, by_p);
                }
                order.truncate(top);
                order.sort_unstable_by(by_p);
                teacher.ids.extend(order.iter().map(|&id| i64::from(id)));
                teacher.p.extend(order.iter().map(|&id| row[id as usize].exp()));
            }
        }
        Ok(teacher)
    }

    /// Several teachers' rows behind one another; all must have learned equally many tokens.
    pub(crate) fn joined<'a>(teachers: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self { ids: Vec::new(), p: Vec::new(), top: 0 };
        for Self { ids, p, top } in teachers {
            all.ids.extend(ids);
            all.p.extend(p);
            all.top = *top;
        }
        all
    }

    /// The tokens it keeps of each row.
    pub fn top(&self) -> usize {
        self.top
    }

    /// How many rows it was made of.
    pub fn rows(&self) -> usize {
        self.ids.len() / self.top.max(1)
    }

    /// Ids and probabilities, for digests.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (i64, f32)> + '_ {
        self.ids.iter().copied().zip(self.p.iter().copied())
    }

    /// The divergence of hidden rows `[n, hidden]` from the teacher, `KL(teacher || student)`, over the teacher's
    /// likeliest tokens and one more that stands for all others; slopes where `hidden` is tracked.
    ///
    /// # Errors
    /// When values cannot be read back from the device.
    pub fn divergence(&self, decoder: &Decoder, adapter: &dyn LinearAdapter, hidden: &Tensor<2>) -> Result<RowLosses> {
        let [n, width] = hidden.dims();
        let (top, device, tracked) = (self.top, decoder.device(), hidden.is_autodiff());
        let mut found = RowLosses { losses: Vec::with_capacity(n), slopes: None };
        let mut slopes = Vec::new();
        let rows = (PIECE / decoder.config().vocab_size.max(1)).max(1);
        for start in (0..n).step_by(rows) {
            let count = rows.min(n - start);
            let part = start * top..(start + count) * top;
            let (Some(ids), Some(p)) = (self.ids.get(part.clone()), self.p.get(part)) else { break };
            let others = p.chunks_exact(top.max(1)).map(|row| (1.0 - row.iter().sum::<f32>()).max(0.0));
            let others: Vec<f32> = others.collect();
            let entropy: Vec<f32> =
                p.chunks_exact(top.max(1)).zip(&others).map(|(row, &other)| negentropy(row, other)).collect();
            let mut piece = hidden.clone().inner().slice(s![start..start + count, ..]);
            if tracked {
                piece = piece.autodiff().require_grad();
            }
            let constant = |values: Vec<f32>, columns: usize| {
                let tensor = Tensor::<2>::from_data(TensorData::new(values, [count, columns]), device);
                if tracked { tensor.autodiff() } else { tensor }
            };
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [count, top]), device);
            let logits: Tensor<2> =
                decoder.logits_with(piece.clone().reshape([1, count, width]), adapter).reshape([count as i64, -1]);
            let log_q = log_softmax(logits, 1).gather(1, ids);
            let rest = (log_q.clone().exp().sum_dim(1).neg() + 1.0).clamp_min(1e-7).log();
            let cross = (log_q * constant(p.to_vec(), top)).sum_dim(1) + rest * constant(others, 1);
            let kl = constant(entropy, 1) - cross;
            found.losses.extend(values("the divergence", kl.clone())?);
            if tracked {
                slopes.extend(piece.grad_remove(&mut backward(&kl.sum())));
            }
        }
        if !slopes.is_empty() {
            found.slopes = Some(Tensor::cat(slopes, 0));
        }
        Ok(found)
    }
}

/// `sum(p ln p)` of a row's tokens and all others.
fn negentropy(row: &[f32], others: f32) -> f32 {
    row.iter().chain([&others]).filter(|&&p| p > 0.0).map(|&p| p * p.ln()).sum()
}

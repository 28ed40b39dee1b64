//! Attention in burn's own operations, a block of queries at a time.
//!
//! burn has an attention of its own, whose fast way on GPUs takes few lengths and whose other ways hold the scores of all
//! queries at once, in the type of the inputs: 69 GB in bf16 for 32 heads over 32,768 positions. Here scores are of a block of
//! queries, and their softmax is computed in f32.

use burn::tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData, activation::softmax, s};

/// Queries of a block.
const QUERIES: usize = 512;

/// Grouped-query attention: `q` `[batch, seq_q, heads, dim]`; `k`, `v` `[batch, kv_heads, seq_k, dim]` -> `[batch, seq_q,
/// heads * dim]`. Query `i` of sequence `b` sees keys `padding[b] ..= i + seq_k - seq_q` if `causal`, else all from `padding[b]`
/// on; one that sees no key gives zeros.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, padding: &[usize], causal: bool) -> Tensor<3> {
    let ([batch, seq_q, heads, dim], [_, kv_heads, seq_k, _]) = (q.dims(), k.dims());
    // [batch, kv_heads, group, seq_q, dim]: heads that share keys stand together, so that no key is repeated.
    let group = heads / kv_heads.max(1);
    let q = q.reshape([batch, seq_q, kv_heads, group, dim]).permute([0, 2, 3, 1, 4]);
    let pad = padding.iter().copied().any(|pad| pad > 0).then(|| {
        let pad = (0..batch).map(|b| padding.get(b).copied().unwrap_or(0) as i64);
        Tensor::<4, Int>::from_data(TensorData::new(pad.collect::<Vec<_>>(), [batch, 1, 1, 1]), &k.device())
    });
    let block = |first: usize| {
        let rows = seq_q.min(first + QUERIES) - first;
        // Keys that the last of these queries sees.
        let end = if causal { (first + rows + seq_k).saturating_sub(seq_q) } else { seq_k };
        if end == 0 {
            return Tensor::zeros([batch, rows, heads * dim], (&q.device(), q.dtype()));
        }
        let seen = |x: &Tensor<4>| x.clone().slice(s![.., .., 0..end, ..]);
        let some = q.clone().slice(s![.., .., .., first..first + rows, ..]);
        let some = some.reshape([batch, kv_heads, group * rows, dim]).mul_scalar((dim as f64).powf(-0.5));
        let scores = wide(some.matmul(seen(&k).swap_dims(2, 3)));
        let columns = || Tensor::<1, Int>::arange(0..end as i64, &k.device()).reshape([1, 1, 1, end]);
        let newest = causal.then(|| {
            let first = (first + seq_k) as i64 - seq_q as i64;
            let last = Tensor::<1, Int>::arange(first..first + rows as i64, &k.device()).reshape([1, 1, rows, 1]);
            columns().expand([1, 1, rows, end]).greater(last.expand([1, 1, rows, end]))
        });
        let oldest = pad.clone().map(|pad| {
            let shape = [batch, 1, 1, end];
            columns().expand(shape).lower(pad.expand(shape))
        });
        let all = [batch, kv_heads, group, rows, end];
        let mask = |x: Tensor<4, Bool>| {
            let [batch, _, rows, _] = x.dims();
            x.reshape([batch, 1, 1, rows, end]).expand(all).reshape(scores.dims())
        };
        let masks: Vec<Tensor<4, Bool>> = [newest, oldest].into_iter().flatten().map(mask).collect();
        // Finite, so that a query which sees nothing has weights, and these become zeros.
        let hidden = masks.iter().fold(scores, |x, mask| x.mask_fill(mask.clone(), -1e30));
        let weights = masks.into_iter().fold(softmax(hidden, 3), |x, mask| x.mask_fill(mask, 0.0));
        let mixed = weights.cast(v.dtype()).matmul(seen(&v)).reshape([batch, kv_heads, group, rows, dim]);
        mixed.permute([0, 3, 1, 2, 4]).reshape([batch, rows, heads * dim])
    };
    Tensor::cat((0..seq_q).step_by(QUERIES).map(block).collect(), 1)
}

/// Halves as f32.
fn wide(x: Tensor<4>) -> Tensor<4> {
    if matches!(x.dtype(), DType::BF16 | DType::F16) { x.cast(FloatDType::F32) } else { x }
}

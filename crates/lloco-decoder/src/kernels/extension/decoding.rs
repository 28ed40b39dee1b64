//! The kernel of a pass over a cache: without gradients.

use super::flex::{Cache, Turn, dense};
use crate::ops::Seen;
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use half::{bf16, f16};

/// Causal attention behind the `past` rows of a cache, which takes the new ones: returns the mixed values
/// `[batch, rows, heads * dim]`, and the cache's keys and values `[batch, kv_heads, capacity, dim]` as they are then. They
/// are written in place where nobody else holds them.
///
/// `q` `[batch, rows, heads * dim]` are the newest of the rows of `k` and `v` `[batch, seq, kv_heads * dim]`; `q` and `k` are
/// turned here, by tables `[positions, dim / 2]`. Without gradients.
pub(crate) fn cached_attention(
    [q, k, v]: [Tensor<3>; 3],
    [keys, values]: [Tensor<4>; 2],
    [cos, sin]: [&Tensor<2>; 2],
    past: usize,
    seen: &Seen,
) -> (Tensor<3>, [Tensor<4>; 2]) {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let [keys, values] = [keys, values].map(Tensor::into_dispatch);
    let [cos, sin] = [cos, sin].map(|table| table.clone().into_dispatch());
    let (out, keys, values) = Dispatch::cached_attention(q, k, v, keys, values, cos, sin, past, seen.clone());
    (Tensor::from_dispatch(out), [keys, values].map(Tensor::from_dispatch))
}

/// It as a backend operation.
#[backend_extension(Flex)]
trait Decoding: Backend {
    #[allow(clippy::too_many_arguments, reason = "tensors cross the dispatch one by one")]
    fn cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        past: usize,
        seen: Seen,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl Decoding for Flex {
    fn cached_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        keys: FlexTensor,
        values: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
        past: usize,
        seen: Seen,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let by = Turn { cos: dense(cos), sin: dense(sin), offset: past, padding: seen.padding };
        let mut cache = Cache { keys, values, rounded: seen.rounded };
        let out = match cache.keys.dtype() {
            DType::F16 => cache.attend::<f16>(q, k, v, by),
            DType::BF16 => cache.attend::<bf16>(q, k, v, by),
            _ => cache.attend::<f32>(q, k, v, by),
        };
        (out, cache.keys, cache.values)
    }
}

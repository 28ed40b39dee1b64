use super::super::{attention, cached_attention, rope};
use super::tensor;
use crate::ops::Seen;
use burn::tensor::{Device, FloatDType, Tensor, TensorData, s};

fn data<const D: usize>(x: Tensor<D>) -> TensorData {
    x.cast(FloatDType::F32).into_data()
}

#[test]
fn a_step_over_the_cache_is_its_parts_one_by_one() {
    let device = Device::flex();
    let [batch, heads, kv_heads, dim, capacity] = [2, 6, 2, 32, 150];
    let [cos, sin] = [1, 2].map(|seed| tensor::<2>([200, dim / 2], seed, &device));
    for dtype in [FloatDType::F16, FloatDType::BF16, FloatDType::F32] {
        for (past, seq, queries) in [(0, 1, 1), (5, 3, 3), (9, 1, 1), (7, 100, 2), (50, 100, 100)] {
            for padding in [vec![], vec![0, 4]] {
                let how = Seen { padding: padding.as_slice().into(), causal: true, rounded: false, pieces: [].into() };
                let what = format!("{dtype:?} {past} {seq} {queries} {padding:?}");
                let new = |seed, rows, heads| tensor::<3>([batch, rows, heads * dim], seed, &device);
                let (q, k, v) = (new(3, queries, heads), new(4, seq, kv_heads), new(5, seq, kv_heads));
                let [keys, values] =
                    [6, 7].map(|seed| tensor::<4>([batch, kv_heads, capacity, dim], seed, &device).cast(dtype));

                let apart = |x: Tensor<3>, rows: usize, heads: usize| x.reshape([batch, rows, heads, dim]);
                let turn = |x, at| rope(x, cos.clone(), sin.clone(), at, &padding);
                let written = |cache: &Tensor<4>, x: Tensor<4>| {
                    let x = x.swap_dims(1, 2).cast(dtype);
                    cache.clone().slice_assign(s![.., .., past..past + seq, ..], x)
                };
                let wanted_keys = written(&keys, turn(apart(k.clone(), seq, kv_heads), past));
                let wanted_values = written(&values, apart(v.clone(), seq, kv_heads));
                let seen = |cache: &Tensor<4>| cache.clone().slice(s![.., .., 0..past + seq, ..]);
                let turned = turn(apart(q.clone(), queries, heads), past + seq - queries);
                let wanted = attention(turned, seen(&wanted_keys), seen(&wanted_values), how.clone());

                let (found, [keys, values]) = cached_attention([q, k, v], [keys, values], [&cos, &sin], past, &how);
                assert_eq!(data(found), data(wanted), "{what}");
                assert_eq!(data(keys), data(wanted_keys), "{what}: keys");
                assert_eq!(data(values), data(wanted_values), "{what}: values");
            }
        }
    }
}

#[test]
fn a_cache_that_somebody_holds_is_copied() {
    let device = Device::flex();
    let table = tensor::<2>([4, 8], 1, &device);
    let new = || tensor::<3>([1, 1, 16], 2, &device);
    let held = Tensor::<4>::zeros([1, 1, 4, 16], &device);
    let (_, [keys, values]) = cached_attention(
        [new(), new(), new()],
        [held.clone(), held.clone()],
        [&table, &table],
        0,
        &Seen { padding: [].into(), causal: true, rounded: false, pieces: [].into() },
    );
    assert_eq!(data(held), data(Tensor::<4>::zeros([1, 1, 4, 16], &device)));
    assert_ne!(data(keys), data(values));
}

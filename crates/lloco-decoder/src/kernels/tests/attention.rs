use super::super::attention as on_tensors;
use super::super::attention::{Inputs, Saved, Sizes, View, attention, attention_backward, tiled, tiled_backward};
use super::super::cpu::Isa;
use super::super::tiles::emulated;
use super::{close, numbers, tensor, values};
use crate::Packing;
use crate::ops::{self, Seen};
use burn::tensor::{Bool, Device, FloatDType, Tensor, TensorData, activation, s};

fn sizes([batch, heads, kv_heads, queries, keys, dim]: [usize; 6], causal: bool) -> Sizes {
    Sizes { batch, heads, kv_heads, queries, keys, dim, causal }
}

fn seen(padding: &[usize], causal: bool) -> Seen {
    Seen { padding: padding.into(), causal, rounded: false, pieces: [].into() }
}

/// Prefill and decoding, one head and groups, odd lengths, dimensions that fill no register, padding up to everything;
/// each causal and not.
fn cases() -> Vec<([usize; 6], Vec<usize>, bool)> {
    let cases = [
        ([1, 1, 1, 1, 1, 16], vec![]),
        ([2, 6, 2, 5, 130, 32], vec![3, 70]),
        ([1, 9, 3, 1, 700, 64], vec![]),
        ([2, 4, 2, 33, 33, 20], vec![0, 9]),
        ([1, 9, 3, 150, 217, 64], vec![5]),
        ([1, 2, 1, 70, 60, 64], vec![]),
        ([3, 9, 3, 1, 1500, 64], vec![0, 1400, 600]),
        ([1, 4, 4, 3, 77, 80], vec![77]),
        ([2, 4, 2, 40, 40, 48], vec![40, 39]),
        ([2, 2, 1, 530, 600, 16], vec![0, 90]),
    ];
    let both = |(case, padding): ([usize; 6], Vec<usize>)| [true, false].map(|causal| (case, padding.clone(), causal));
    cases.into_iter().flat_map(both).collect()
}

fn reference(inputs: &Inputs<'_, f32>) -> Vec<f32> {
    let z = inputs.sizes;
    let mut out = Vec::new();
    for at in 0..z.batch * z.queries * z.heads {
        let (b, i, h) = (at / z.heads / z.queries, at / z.heads % z.queries, at % z.heads);
        let seen = inputs.padding(b)..z.visible(i);
        let key = |j| inputs.k.row(b, h / z.group(), j);
        let score =
            |j| inputs.q.row(b, h, i).iter().zip(key(j)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
        let weights: Vec<f64> = seen.clone().map(|j| (score(j) / (z.dim as f64).sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..z.dim {
            let values = seen.clone().map(|j| f64::from(inputs.v.row(b, h / z.group(), j)[d]));
            let sum: f64 = values.zip(&weights).map(|(v, w)| v * w).sum();
            out.push(if weights.is_empty() { 0.0 } else { (sum / total) as f32 });
        }
    }
    out
}

#[test]
fn every_path_attends() {
    for isa in Isa::available() {
        for (case, padding, causal) in cases() {
            let z = sizes(case, causal);
            // Keys and values lie in a cache with room to spare.
            let room = z.keys + 7;
            let q = numbers(z.batch * z.queries * z.heads * z.dim, 1).iter().map(|x| 4.0 * x).collect::<Vec<_>>();
            let [k, v] = [2, 3].map(|seed| numbers(z.batch * z.kv_heads * room * z.dim, seed));
            let cached =
                |data| View { data, offset: 0, strides: [z.kv_heads * room * z.dim, room * z.dim, z.dim], dim: z.dim };
            let strides = [z.queries * z.heads * z.dim, z.dim, z.heads * z.dim];
            let q = View { data: q.as_slice(), offset: 0, strides, dim: z.dim };
            let inputs = Inputs { sizes: z, q, k: cached(&k), v: cached(&v), padding: &padding, rounded: false };
            let wanted = reference(&inputs);
            let mut out = vec![f32::NAN; q.data.len()];
            attention(isa, inputs, &mut out, None);
            close(&out, &wanted, 5e-6, &format!("{isa:?} {z:?}"));
            attention(isa, Inputs { rounded: true, ..inputs }, &mut out, None);
            close(&out, &wanted, 0.02, &format!("{isa:?} {z:?} rounded"));
            let mut lse = vec![f32::NAN; z.batch * z.heads * z.queries];
            tiled::with(emulated::Tiles, isa, inputs, &mut out, &mut lse);
            close(&out, &wanted, 0.02, &format!("{isa:?} {z:?} by tiles in plain code"));
        }
    }
}

/// Scores that grow so much that exponentials relative to the first ones would have no number, or would only just: within a
/// chunk of keys and between chunks, with earlier keys that still count and without.
#[test]
fn scores_may_jump_along_the_keys() {
    let z = sizes([1, 1, 1, 700, 700, 16], true);
    // bf16 has these numbers. 27 is 39 powers of two, 29 is 42.
    let jumps: [&[(usize, f32)]; 3] = [
        &[(0, 0.0), (20, 120.0), (70, 119.0), (200, 480.0)],
        &[(0, 0.0), (40, 27.0), (90, 29.0), (300, 28.0), (530, 56.0), (600, 58.0)],
        &[(0, 5.0), (250, 31.0), (280, 33.5), (511, 34.0), (512, 75.0)],
    ];
    for jumps in jumps {
        let score = |key: usize| jumps.iter().rfind(|(first, _)| *first <= key).map_or(0.0, |(_, score)| *score);
        let q: Vec<f32> = (0..z.queries * z.dim).map(|at| if at % z.dim == 0 { 16.0 } else { 0.0 }).collect();
        let k: Vec<f32> =
            (0..z.keys * z.dim).map(|at| if at % z.dim == 0 { score(at / z.dim) / 4.0 } else { 0.0 }).collect();
        let v = numbers(z.keys * z.dim, 3);
        let view = |data| View { data, offset: 0, strides: [z.keys * z.dim, z.keys * z.dim, z.dim], dim: z.dim };
        let inputs = Inputs { sizes: z, q: view(&q), k: view(&k), v: view(&v), padding: &[], rounded: false };
        let wanted = reference(&inputs);
        let logs: Vec<f32> = (0..z.queries)
            .map(|i| {
                let top = (0..=i).map(score).fold(0.0, f32::max);
                top + (0..=i).map(|key| f64::from(score(key) - top).exp()).sum::<f64>().ln() as f32
            })
            .collect();
        for isa in Isa::available() {
            let check = |tolerance, what: &str, run: &dyn Fn(&mut [f32], &mut [f32])| {
                let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; z.queries]);
                run(&mut out, &mut lse);
                close(&out, &wanted, tolerance, &format!("{isa:?} {what}"));
                close(&lse, &logs, tolerance, &format!("{isa:?} {what}: logarithms"));
            };
            let rounded = Inputs { rounded: true, ..inputs };
            check(1e-4, "", &|out, lse| attention(isa, inputs, out, Some(lse)));
            check(0.01, "rounded", &|out, lse| attention(isa, rounded, out, Some(lse)));
            check(0.01, "by tiles in plain code", &|out, lse| tiled::with(emulated::Tiles, isa, inputs, out, lse));
        }
    }
}

/// What no number comes of is seen: scores that are infinite or none are not taken for keys that nobody sees.
#[test]
fn scores_without_a_number_are_not_hidden() {
    let z = sizes([1, 1, 1, 40, 40, 16], true);
    let [q, v] = [1, 3].map(|seed| numbers(z.queries * z.dim, seed).into_iter().map(f32::abs).collect::<Vec<_>>());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut k = numbers(z.keys * z.dim, 2);
        k[..z.dim].fill(bad);
        let view = |data| View { data, offset: 0, strides: [z.keys * z.dim, z.keys * z.dim, z.dim], dim: z.dim };
        let inputs = Inputs { sizes: z, q: view(&q), k: view(&k), v: view(&v), padding: &[], rounded: true };
        for isa in Isa::available() {
            let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; z.queries]);
            attention(isa, inputs, &mut out, Some(&mut lse));
            assert!(out[..z.dim].iter().all(|x| x.is_nan()), "{isa:?} {bad}");
            tiled::with(emulated::Tiles, isa, inputs, &mut out, &mut lse);
            assert!(out[..z.dim].iter().all(|x| x.is_nan()), "{isa:?} {bad} by tiles");
        }
    }
}

#[test]
fn gradients_by_tiles_are_those_without() {
    for isa in Isa::available() {
        for (case, padding, causal) in cases().into_iter().chain([([1, 3, 1, 700, 700, 64], vec![40], true)]) {
            let z = sizes(case, causal);
            let q = numbers(z.batch * z.queries * z.heads * z.dim, 1).iter().map(|x| 2.0 * x).collect::<Vec<_>>();
            let [k, v] = [2, 3].map(|seed| numbers(z.batch * z.kv_heads * z.keys * z.dim, seed));
            let view = |data| View {
                data,
                offset: 0,
                strides: [z.kv_heads * z.keys * z.dim, z.keys * z.dim, z.dim],
                dim: z.dim,
            };
            let strides = [z.queries * z.heads * z.dim, z.dim, z.heads * z.dim];
            let q = View { data: q.as_slice(), offset: 0, strides, dim: z.dim };
            let inputs = Inputs { sizes: z, q, k: view(&k), v: view(&v), padding: &padding, rounded: false };
            let (mut out, mut lse) = (vec![0.0; q.data.len()], vec![0.0; z.batch * z.heads * z.queries]);
            attention(isa, inputs, &mut out, Some(&mut lse));
            let saved = Saved { out: &out, lse: &lse, grad: &numbers(out.len(), 4) };
            let wanted = attention_backward(isa, inputs, saved);
            let emulated = tiled_backward::attention_backward(emulated::Tiles, isa, inputs, saved);
            let own = attention_backward(isa, Inputs { rounded: true, ..inputs }, saved);
            // Differences of large numbers are as inexact as these: what cancels is held against the largest of all.
            let all = wanted.q.iter().chain(&*wanted.k).chain(&*wanted.v);
            let tolerance = 0.02 * all.fold(0.5, |m: f32, x| m.max(x.abs()));
            for found in [emulated, own] {
                let what = |name| format!("{isa:?} d{name} of {z:?} padded {padding:?}");
                close(&found.q, &wanted.q, tolerance, &what("q"));
                close(&found.k, &wanted.k, tolerance, &what("k"));
                close(&found.v, &wanted.v, tolerance, &what("v"));
            }
        }
    }
}

/// Attention in burn's own operations.
fn plain(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, padding: &[usize], causal: bool) -> Tensor<3> {
    let [batch, queries, heads, dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let z = sizes([batch, heads, kv_heads, queries, keys, dim], causal);
    let spread = |x: Tensor<4>| {
        let x: Tensor<5> = x.unsqueeze_dim(2);
        x.repeat_dim(2, z.group()).reshape([batch, heads, keys, dim])
    };
    let mut hidden = Vec::new();
    for b in 0..batch {
        for i in 0..queries {
            let seen = padding.get(b).copied().unwrap_or(0)..z.visible(i);
            hidden.extend((0..keys).map(|j| !seen.contains(&j)));
        }
    }
    let mask = Tensor::<4, Bool>::from_data(TensorData::new(hidden, [batch, 1, queries, keys]), &q.device());
    let scores = q.swap_dims(1, 2).matmul(spread(k).transpose()).mul_scalar(z.scale());
    let mask = mask.expand([batch, heads, queries, keys]);
    let weights = activation::softmax(scores.mask_fill(mask.clone(), -1e9), 3).mask_fill(mask, 0.0);
    weights.matmul(spread(v)).swap_dims(1, 2).reshape([batch, queries, heads * dim])
}

#[test]
fn tensors_and_gradients_agree_with_burn() {
    let device = Device::flex().autodiff();
    for (case, padding, causal) in cases() {
        let [batch, heads, kv_heads, queries, keys, dim] = case;
        let q = tensor::<4>([batch, queries, heads, dim], 1, &device).mul_scalar(2.0).require_grad();
        let k = tensor::<4>([batch, kv_heads, keys, dim], 2, &device).require_grad();
        let v = tensor::<4>([batch, kv_heads, keys, dim], 3, &device).require_grad();
        let push = tensor::<3>([batch, queries, heads * dim], 4, &device);
        let outcome = |y: Tensor<3>| {
            let value = values(y.clone());
            let mut gradients = (y * push.clone()).sum().backward();
            let gradient = |x: &Tensor<4>| values(x.grad_remove(&mut gradients).expect("tracked"));
            [vec![value], [&q, &k, &v].map(gradient).to_vec()].concat()
        };
        let found = outcome(on_tensors(q.clone(), k.clone(), v.clone(), seen(&padding, causal)));
        let wanted = outcome(plain(q.clone(), k.clone(), v.clone(), &padding, causal));
        for ((found, wanted), what) in found.iter().zip(&wanted).zip(["output", "dq", "dk", "dv"]) {
            close(found, wanted, 3e-5, &format!("{what} of {case:?} padded {padding:?} causal {causal}"));
        }
    }
}

#[test]
fn pieces_in_one_operation_are_those_one_by_one() {
    let device = Device::flex().autodiff();
    let (mut packing, mut rows) = (Packing::new(), 0);
    for (trunk, branches) in [(37, &[12, 1, 70, 41][..]), (0, &[33, 6]), (90, &[]), (3, &[64, 130])] {
        rows += trunk + branches.iter().sum::<usize>();
        packing.tree(trunk, branches);
    }
    for rounded in [false, true] {
        let how = Seen { rounded, pieces: packing.pieces().into(), ..seen(&[], true) };
        let q = tensor::<4>([1, rows, 6, 32], 1, &device).mul_scalar(2.0).require_grad();
        // Keys come with rows and heads swapped.
        let [k, v] = [2, 3].map(|seed| tensor::<4>([1, rows, 2, 32], seed, &device).require_grad());
        let push = tensor::<3>([1, rows, 6 * 32], 4, &device);
        let outcome = |attend: &dyn Fn([Tensor<4>; 3]) -> Tensor<3>| {
            let y = attend([q.clone(), k.clone().swap_dims(1, 2), v.clone().swap_dims(1, 2)]);
            let value = values(y.clone());
            let mut gradients = (y * push.clone()).sum().backward();
            let gradient = |x: &Tensor<4>| values(x.grad_remove(&mut gradients).expect("tracked"));
            [vec![value], [&q, &k, &v].map(gradient).to_vec()].concat()
        };
        let found = outcome(&|[q, k, v]| on_tensors(q, k, v, how.clone()));
        let wanted = outcome(&|[q, k, v]| ops::packed_attention(q, k, v, &how));
        for ((found, wanted), what) in found.iter().zip(&wanted).zip(["output", "dq", "dk", "dv"]) {
            close(found, wanted, 3e-5, &format!("{what}, rounded {rounded}"));
        }
    }
}

#[test]
fn other_devices_operations_agree() {
    let device = Device::flex();
    for (case, padding, causal) in cases() {
        let [batch, heads, kv_heads, queries, keys, dim] = case;
        let q = tensor::<4>([batch, queries, heads, dim], 1, &device).mul_scalar(2.0);
        let [k, v] = [2, 3].map(|seed| tensor::<4>([batch, kv_heads, keys, dim], seed, &device));
        let found = values(on_tensors(q.clone(), k.clone(), v.clone(), seen(&padding, causal)));
        // The kernels take f32 alone: other types go the way of other devices.
        let [q, k, v] = [q, k, v].map(|x| x.cast(FloatDType::F64));
        let wanted = values(ops::attention(q, k, v, &seen(&padding, causal)).cast(FloatDType::F32));
        close(&found, &wanted, 5e-6, &format!("{case:?} padded {padding:?} causal {causal}"));
    }
}

#[test]
fn other_devices_gradients_agree() {
    let device = Device::flex().autodiff();
    let outcome = |dtype| {
        let q = tensor::<4>([2, 540, 4, 16], 1, &device).cast(dtype).require_grad();
        let [k, v] = [2, 3].map(|seed| tensor::<4>([2, 2, 560, 16], seed, &device).cast(dtype).require_grad());
        let push = tensor::<3>([2, 540, 4 * 16], 4, &device).cast(dtype);
        let mixed = ops::attention(q.clone(), k.clone(), v.clone(), &seen(&[0, 30], true));
        let mut gradients = (mixed * push).sum().backward();
        [q, k, v].map(|x| values(x.grad_remove(&mut gradients).expect("tracked").cast(FloatDType::F32)))
    };
    let (found, wanted) = (outcome(FloatDType::F64), outcome(FloatDType::F32));
    for ((found, wanted), what) in found.iter().zip(&wanted).zip(["dq", "dk", "dv"]) {
        close(found, wanted, 3e-5, what);
    }
}

#[test]
fn other_devices_weigh_in_f32() {
    // Two thousand equal weights: in bf16 their sum would stop growing at 256.
    let device = Device::flex();
    let halves = |shape, value| Tensor::<4>::full(shape, value, &device).cast(FloatDType::BF16);
    let (q, k, v) = (halves([1, 1, 2, 16], 0.5), halves([1, 1, 2000, 16], 0.5), halves([1, 1, 2000, 16], 1.0));
    let mixed = values(ops::attention(q, k, v, &seen(&[], false)).cast(FloatDType::F32));
    assert!(mixed.iter().all(|x| (x - 1.0).abs() < 0.02), "{:?}", &mixed[..4]);
}

#[test]
fn views_of_a_cache_are_read_in_place() {
    let device = Device::flex();
    let q = tensor::<4>([2, 3, 6, 16], 1, &device);
    let [k, v] = [2, 3].map(|seed| tensor::<4>([2, 2, 50, 16], seed, &device));
    let view = |x: &Tensor<4>| x.clone().slice(s![.., .., 5..40, ..]);
    let dense = |x: &Tensor<4>| Tensor::from_data(view(x).to_data(), &device);
    let wanted = values(on_tensors(q.clone(), dense(&k), dense(&v), seen(&[], true)));
    assert_eq!(values(on_tensors(q.clone(), view(&k), view(&v), seen(&[], true))), wanted);
    // [batch, keys, kv_heads, dim] with two dimensions swapped, and dims out of order altogether.
    let swapped = |x: &Tensor<4>| dense(x).swap_dims(1, 2);
    let again = |x: &Tensor<4>| Tensor::<4>::from_data(swapped(x).to_data(), &device).swap_dims(1, 2);
    assert_eq!(values(on_tensors(q.clone(), again(&k), again(&v), seen(&[], true))), wanted);
    let sparse = |x: &Tensor<4>| Tensor::<4>::from_data(dense(x).swap_dims(2, 3).to_data(), &device).swap_dims(2, 3);
    assert_eq!(values(on_tensors(q, sparse(&k), sparse(&v), seen(&[], true))), wanted);
}

#[test]
fn hidden_garbage_stays_hidden() {
    let device = Device::flex();
    for queries in [1, 40] {
        let q = tensor::<4>([1, queries, 2, 16], 1, &device);
        let [k, v] = [2, 3].map(|seed| tensor::<4>([1, 1, 100, 16], seed, &device));
        let wanted = values(on_tensors(q.clone(), k.clone(), v.clone(), seen(&[10], true)));
        let loud = Tensor::full([1, 1, 10, 16], 1e30, &device);
        let [k, v] = [k, v].map(|x| x.slice_assign(s![.., .., 0..10, ..], loud.clone()));
        assert_eq!(values(on_tensors(q, k, v, seen(&[10], true))), wanted);
    }
}

#[test]
fn keys_and_values_may_be_halves() {
    let device = Device::flex();
    for (queries, dim) in [(1, 64), (40, 64), (3, 20)] {
        let q = tensor::<4>([1, queries, 4, dim], 1, &device);
        let [k, v] = [2, 3].map(|seed| tensor::<4>([1, 2, 130, dim], seed, &device));
        for dtype in [FloatDType::F16, FloatDType::BF16] {
            let halves = [&k, &v].map(|x| x.clone().cast(dtype));
            let rounded = halves.clone().map(|x| x.cast(FloatDType::F32));
            let ([k, v], [rk, rv]) = (halves, rounded);
            let wanted = values(on_tensors(q.clone(), rk, rv, seen(&[3], true)));
            assert_eq!(values(on_tensors(q.clone(), k, v, seen(&[3], true))), wanted, "{dtype:?}");
        }
    }
}

//! Causal attention alone, at the default model's shapes: prefill, and one query behind a cache.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use lloco_benches::{Group, limit};
use lloco_core::{WeightType, device};
use lloco_decoder::measured;

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const DIM: usize = 64;

/// The type of keys and values in a cache of the default model.
fn cached(device: &Device) -> FloatDType {
    if device == &Device::flex() { FloatDType::F16 } else { FloatDType::F32 }
}

/// Attention of `new` queries over `all` keys, the latter as a cache holds them.
fn work(new: usize, all: usize, device: &Device) -> impl Fn() + use<> {
    let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, device);
    let dtype = cached(device);
    let q = random([1, new, HEADS, DIM]);
    let (k, v) = (random([1, KV_HEADS, all, DIM]).cast(dtype), random([1, KV_HEADS, all, DIM]).cast(dtype));
    move || limit::wait(measured::attention(q.clone(), k.clone(), v.clone()))
}

fn attention(criterion: &mut Criterion) {
    let device = device(&std::env::var("LLOCO_DEVICE").unwrap_or_else(|_| "cpu".into())).unwrap();
    // The kernels round what they multiply to bf16 where that is faster.
    let rate = limit::product_rate(WeightType::Bf16, &device);
    let mut group = Group::new(criterion, "attention/prefill");
    for seq in [512, 1536, 8192] {
        let Some(seconds) = group.time(&format!("{seq} positions"), seq as u64, work(seq, seq, &device)) else {
            continue;
        };
        let operations = (4 * HEADS * DIM) as f64 * (seq * (seq + 1) / 2) as f64;
        println!(
            "{seq} positions: {:.1} GFLOP/s, {:.0} % of the product rate alone ({:.1} GFLOP/s)",
            operations / seconds / 1e9,
            100.0 * operations / seconds / rate,
            rate / 1e9
        );
    }
    drop(group);
    let bandwidth = limit::bandwidth_of(&device);
    let mut group = Group::new(criterion, "attention/decode");
    for past in [1024, 8192, 65_536] {
        let Some(seconds) = group.time(&format!("{past} positions"), 1, work(1, past, &device)) else { continue };
        let bytes = (2 * KV_HEADS * DIM * past * DType::from(cached(&device)).size()) as f64;
        println!(
            "{past} positions: {:.1} GB/s of keys and values, {:.0} % of the memory bandwidth ({:.1} GB/s)",
            bytes / seconds / 1e9,
            100.0 * bytes / seconds / bandwidth,
            bandwidth / 1e9
        );
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);

//! Causal attention alone, at the default model's shapes: prefill, and one query behind a cache.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use burn::tensor::{DType, Device, Distribution, Tensor};
use criterion::Criterion;
use lloco_benches::{Group, Share, limit};
use lloco_decoder::measured;

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const DIM: usize = 64;

/// The type of keys and values in a cache of the default model.
fn cached(device: &Device) -> DType {
    if device == &Device::flex() { DType::F16 } else { queried(device) }
}

/// The type of queries: that of activations.
fn queried(device: &Device) -> DType {
    limit::activations(limit::halves(device), device)
}

/// Attention of `new` queries over `all` keys, the latter as a cache holds them.
fn work(new: usize, all: usize, device: &Device) -> impl Fn() + use<> {
    let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, device);
    let dtype = cached(device);
    let q = random([1, new, HEADS, DIM]).cast(queried(device));
    let (k, v) = (random([1, KV_HEADS, all, DIM]).cast(dtype), random([1, KV_HEADS, all, DIM]).cast(dtype));
    move || limit::wait(measured::attention(q.clone(), k.clone(), v.clone()))
}

fn attention(criterion: &mut Criterion) {
    let device = lloco_benches::device().unwrap();
    // The CPU's kernels round what they multiply to bf16 where that is faster; on a GPU it is bf16.
    let limit = limit::product_rate(limit::halves(&device), &device);
    let mut group = Group::new(criterion, "attention/prefill");
    for seq in [512, 1536, 8192] {
        let Some(seconds) = group.time(&format!("{seq} positions"), seq as u64, work(seq, seq, &device)) else {
            continue;
        };
        let operations = (4 * HEADS * DIM) as f64 * (seq * (seq + 1) / 2) as f64;
        println!("{seq} positions: {}", Share::of_products(operations / seconds, limit));
    }
    drop(group);
    let bandwidth = limit::bandwidth_of(&device);
    let mut group = Group::new(criterion, "attention/decode");
    for past in [1024, 8192, 65_536] {
        let Some(seconds) = group.time(&format!("{past} positions"), 1, work(1, past, &device)) else { continue };
        let bytes = (2 * KV_HEADS * DIM * past * cached(&device).size()) as f64;
        println!("{past} positions: keys and values at {}", Share::of_memory(bytes / seconds, bandwidth));
    }
}

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(attention)
}

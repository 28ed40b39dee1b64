//! Frozen projections alone, at the default model's shapes: many rows against the product rate, one row against the
//! memory bandwidth. Types of weights that the device does not compute with are left out.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints")]

use std::process::ExitCode;

use burn::tensor::{Distribution, Tensor};
use criterion::Criterion;
use lloco_benches::{Group, limit};
use lloco_core::WeightType;
use lloco_decoder::measured::Projection;

/// Name, rows and columns of a weight.
const SHAPES: [(&str, usize, usize); 4] =
    [("query", 576, 576), ("gate", 1536, 576), ("down", 576, 1536), ("head", 49_152, 576)];

fn linear(criterion: &mut Criterion) {
    let device = lloco_benches::device().unwrap();
    let bandwidth = limit::bandwidth_of(&device);
    for (weights, bytes) in TYPES {
        if let Err(error) = Projection::random(32, 32, weights, &device) {
            println!("{weights:?} is left out: {error}");
            continue;
        }
        let limit = limit::product_rate(weights, &device);
        let mut group = Group::new(criterion, &format!("linear/{weights:?}"));
        for (name, rows, columns) in SHAPES {
            let projection = Projection::random(rows, columns, weights, &device).unwrap();
            for inputs in [1, 512] {
                let x = Tensor::<3>::random([1, inputs, columns], Distribution::Default, &device);
                let x = x.cast(limit::activations(weights, &device));
                let operations = 2 * inputs * rows * columns;
                let case = format!("{name}, {inputs} rows");
                let work = || limit::wait(projection.forward(x.clone()));
                let Some(seconds) = group.time(&case, operations as u64, work) else { continue };
                let rate = operations as f64 / seconds;
                let read = (rows * columns) as f64 * bytes / seconds;
                println!(
                    "{weights:?} {case}: {:.1} GFLOP/s ({:.0} % of {:.1}), {:.1} GB/s of weights ({:.0} % of {:.1})",
                    rate / 1e9,
                    100.0 * rate / limit,
                    limit / 1e9,
                    read / 1e9,
                    100.0 * read / bandwidth,
                    bandwidth / 1e9
                );
            }
        }
    }
}

/// How weights are held, and the bytes that each takes.
const TYPES: [(WeightType, f64); 4] =
    [(WeightType::F32, 4.0), (WeightType::Bf16, 2.0), (WeightType::Int8, 34.0 / 32.0), (WeightType::Q4, 20.0 / 32.0)];

fn main() -> lloco_benches::Result<ExitCode> {
    lloco_benches::run(linear)
}

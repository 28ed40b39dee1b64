//! What this machine can do at best, measured by the same process that runs the benches.

use std::{hint::black_box, sync::OnceLock, time::Instant};

use burn::tensor::{Device, Distribution, Tensor};
use lloco_decoder::{WeightType, measured::Projection};
use rayon::prelude::*;

/// Bytes a second that all cores together read from memory: the best of several passes over 512 MB.
pub fn bandwidth() -> f64 {
    static LIMIT: OnceLock<f64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let words = vec![1u64; 64 << 20];
        let piece = words.len().div_ceil(rayon::current_num_threads()).max(1);
        best(5, || {
            let sum: u64 = words.par_chunks(piece).map(|part| part.iter().fold(0u64, |a, b| a.wrapping_add(*b))).sum();
            black_box(sum);
            size_of_val(words.as_slice()) as f64
        })
    })
}

/// Floating-point operations a second that the linear kernel reaches alone, at a shape that suits it, for weights of
/// one type.
pub fn product_rate(weights: WeightType, device: &Device) -> f64 {
    const ROWS: usize = 1024;
    let Ok(projection) = Projection::random(1536, 1536, weights, device) else { return f64::NAN };
    let x = Tensor::<3>::random([1, ROWS, 1536], Distribution::Default, device);
    best(5, || {
        wait(projection.forward(x.clone()));
        (2 * ROWS * 1536 * 1536) as f64
    })
}

/// Waits until a tensor is computed.
pub fn wait(tensor: Tensor<3>) {
    let device = tensor.device();
    black_box(tensor);
    // A device without a queue has nothing to wait for.
    let _ = device.sync();
}

/// The best rate of several runs of work that tells its amount.
fn best(runs: usize, mut work: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = work();
        amount / start.elapsed().as_secs_f64()
    };
    (0..runs).map(rate).fold(0.0, f64::max)
}

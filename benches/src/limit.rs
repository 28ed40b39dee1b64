//! What this machine can do at best, measured by the same process that runs the benches.

use std::{hint::black_box, sync::OnceLock};

use burn::tensor::{DType, Device, Tensor};
pub use lloco_decoder::measured::wait;
use lloco_decoder::{
    WeightType,
    measured::{self, Projection, best},
};
use memmap2::MmapMut;
use rayon::prelude::*;

/// Bytes a second that `device` moves to and from its memory.
pub fn bandwidth_of(device: &Device) -> f64 {
    if device == &Device::flex() {
        return bandwidth();
    }
    // Read and written once.
    let x = Tensor::<3>::ones([1, 16_384, 16_384], device);
    best(10, || {
        wait(x.clone().add_scalar(1.0));
        (2 * 16_384 * 16_384 * size_of::<f32>()) as f64
    })
}

/// Bytes a second that all cores together read from memory, in large pages like a decoder's weights: the best of several
/// passes over 512 MB.
fn bandwidth() -> f64 {
    static LIMIT: OnceLock<f64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let Ok(mut memory) = MmapMut::map_anon(512 << 20) else { return f64::NAN };
        // A wish, which systems without large pages leave alone.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        memory.fill(1);
        let piece = memory.len().div_ceil(rayon::current_num_threads()).next_multiple_of(8);
        let sum = |part: &[u8]| {
            part.as_chunks().0.iter().fold(0, |sum: u64, &word| sum.wrapping_add(u64::from_ne_bytes(word)))
        };
        best(5, || {
            black_box(memory.par_chunks(piece).map(sum).reduce(|| 0, u64::wrapping_add));
            memory.len() as f64
        })
    })
}

/// What activations beside weights of one type are, and the other side of every product with them.
pub fn activations(weights: WeightType, device: &Device) -> DType {
    if device == &Device::flex() || weights == WeightType::F32 { DType::F32 } else { DType::BF16 }
}

/// Weights of two bytes where `device` computes with them, as a decoder holds them there.
pub fn halves(device: &Device) -> WeightType {
    let halves = device == &Device::flex() || device.supports_dtype(DType::BF16);
    if halves { WeightType::Bf16 } else { WeightType::F32 }
}

/// Floating-point operations a second that the linear kernel reaches alone, at a shape that suits it, for weights of
/// one type and their [`activations`].
pub fn product_rate(weights: WeightType, device: &Device) -> f64 {
    let dtype = activations(weights, device);
    let rate = measured::product_rate(device, dtype, |width| Projection::random(width, width, weights, device));
    rate.unwrap_or(f64::NAN)
}

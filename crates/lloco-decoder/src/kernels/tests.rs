//! The kernels on every instruction set of this machine, against plain arithmetic in f64 and burn's own operations.

mod attention;
mod blocks;
mod cache;
mod linear;
mod loss;
mod low_rank;
mod rowwise;

use burn::tensor::{Device, Tensor, TensorData};

#[test]
fn tracked_tensors_take_the_kernels_too() {
    let device = Device::flex();
    let x = tensor::<2>([2, 3], 1, &device);
    assert!(super::on_flex(&x));
    assert!(super::on_flex(&x.clone().autodiff().require_grad()));
    assert!(super::is_flex(&device.autodiff()));
    assert!(!super::on_flex(&x.cast(burn::tensor::FloatDType::F16)));
}

/// Numbers in -1..1 that depend on `seed` alone.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(shape.iter().product(), seed), shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32")
}

/// Checks that no number differs by more than `tolerance`; NaN never passes.
#[track_caller]
fn close(found: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}: at {i} found {a}, wanted {b}");
    }
}

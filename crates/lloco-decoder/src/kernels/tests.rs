//! The kernels on every instruction set of this machine, against plain arithmetic in f64 and burn's own operations.

mod attention;
mod blocks;
mod cache;
mod converted;
mod integer;
mod linear;
mod loss;
mod low_rank;
mod rowwise;

use super::cpu::Isa;
use burn::tensor::{Device, Tensor, TensorData};
use std::env;
use std::process::Command;

#[test]
fn tracked_tensors_take_the_kernels_too() {
    let device = Device::flex();
    let x = tensor::<2>([2, 3], 1, &device);
    assert!(super::on_flex(&x));
    assert!(super::on_flex(&x.clone().autodiff().require_grad()));
    assert!(super::is_flex(&device.autodiff()));
    assert!(!super::on_flex(&x.cast(burn::tensor::FloatDType::F16)));
}

/// Runs the tests of gradients through tensors, which take the richest instructions alone, with each of the poorer ones.
#[test]
fn the_way_back_agrees_on_every_path() {
    let best = Isa::best();
    for isa in Isa::available().filter(|isa| *isa < best) {
        let child = Command::new(env::current_exe().expect("this test"))
            .args(["gradients_agree_with_burn", "--test-threads=1"])
            .env("LLOCO_KERNELS", format!("{isa:?}"))
            .output()
            .expect("a child");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("8 passed"), "{isa:?}: {said}");
    }
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

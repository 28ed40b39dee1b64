//! Weights in blocks of 32: eight bits and four.

use super::super::cpu::Isa;
use super::super::matmul::{Write, transposed};
use super::super::pack::{Inputs, PackedLinear, Panels};
use super::super::products as raw;
use super::super::tiles::{Weights, emulated};
use super::{close, numbers, tensor, values};
use crate::gguf::BlockType;
use burn::tensor::{Device, Tensor, TensorData};
use half::f16;

const KINDS: [BlockType; 3] = [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4_1];

/// A GGUF tensor with scales within 0.1 and any numbers, and what it stands for.
fn gguf(kind: BlockType, rows: usize, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut weights) = (Vec::new(), Vec::new());
    let count = rows * cols / 32;
    let (scales, noise) = (numbers(2 * count, 5), numbers(32 * count, 6));
    for b in 0..count {
        let [scale, minimum] = [0, 1].map(|i| f16::from_f32(0.1 * scales[2 * b + i]));
        let noise = &noise[32 * b..32 * (b + 1)];
        bytes.extend(scale.to_le_bytes());
        if kind == BlockType::Q8_0 {
            let block: Vec<i8> = noise.iter().map(|x| (x * 128.0) as i8).collect();
            weights.extend(block.iter().map(|n| scale.to_f32() * f32::from(*n)));
            bytes.extend(block.iter().map(|n| *n as u8));
            continue;
        }
        if kind == BlockType::Q4_1 {
            bytes.extend(minimum.to_le_bytes());
        }
        let block: Vec<u8> = noise.iter().map(|x| (x * 8.0 + 8.0) as u8 & 15).collect();
        bytes.extend((0..16).map(|i| block[i] | block[i + 16] << 4));
        weights.extend(block.iter().map(|n| match kind {
            BlockType::Q4_1 => scale.to_f32() * f32::from(*n) + minimum.to_f32(),
            _ => scale.to_f32() * (f32::from(*n) - 8.0),
        }));
    }
    (bytes, weights)
}

fn int8(rows: usize, cols: usize, weight: &[f32]) -> PackedLinear {
    PackedLinear::int8(rows, cols, weight).expect("finite")
}

fn q4(rows: usize, cols: usize, weight: &[f32]) -> PackedLinear {
    PackedLinear::q4(rows, cols, weight, Inputs::Coarse).expect("finite")
}

fn fine(rows: usize, cols: usize, weight: &[f32]) -> PackedLinear {
    PackedLinear::q4(rows, cols, weight, Inputs::Fine).expect("finite")
}

fn reference(x: &[f32], w: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let dot = |i: usize, j: usize| (0..k).map(|c| f64::from(x[i * k + c]) * f64::from(w[j * k + c])).sum::<f64>();
    (0..m * n).map(|at| dot(at / n, at % n) as f32).collect()
}

#[test]
fn gguf_blocks_multiply_as_they_decode() {
    for isa in Isa::available() {
        for (kind, inputs) in KINDS.into_iter().flat_map(|kind| [(kind, Inputs::Coarse), (kind, Inputs::Fine)]) {
            for [m, k, n] in [[1, 32, 1], [1, 416, 37], [3, 96, 16], [4, 64, 50], [20, 576, 33], [130, 96, 70]] {
                let (bytes, weights) = gguf(kind, n, k);
                let packed = PackedLinear::gguf(n, k, kind, &bytes, inputs).expect("fits");
                // Whole numbers with 127 in each block: eight bits hold them exactly.
                let x: Vec<f32> = numbers(m * k, 1)
                    .iter()
                    .enumerate()
                    .map(|(i, x)| if i % 32 == 7 { 127.0 } else { (x * 126.0).round() })
                    .collect();
                let mut out = vec![f32::NAN; m * n];
                raw::linear(isa, &x, &packed, &mut out);
                let wanted = reference(&x, &weights, [m, k, n]);
                let largest = wanted.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                let coarse = kind != BlockType::Q8_0 && inputs == Inputs::Coarse;
                let tolerance = match isa {
                    // Tiles multiply both factors rounded to bf16.
                    Isa::Amx if m > 16 => 0.01,
                    _ if coarse => 1e-6,
                    _ => 1e-4,
                };
                close(&out, &wanted, tolerance * largest, &format!("{isa:?} {kind:?} {inputs:?} {m} x {k} x {n}"));
            }
        }
    }
}

/// What tiles multiply on machines that have them, in plain code.
#[test]
fn blocks_are_unpacked_to_the_nearest_bf16() {
    for kind in KINDS {
        let [m, k, n] = [33, 96, 70];
        let (bytes, weights) = gguf(kind, n, k);
        let packed = PackedLinear::gguf(n, k, kind, &bytes, Inputs::Fine).expect("fits");
        let blocks = match packed.panels() {
            Panels::Int8(blocks) => Weights::Bytes(blocks),
            Panels::Q4(blocks, _) => Weights::Nibbles(blocks),
            _ => panic!("blocks"),
        };
        let x: Vec<f32> = (0..m * k).map(|i| if i % k == i / k { 1.0 } else { 0.0 }).collect();
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; m * n];
            emulated::linear(isa, &x, blocks, &mut out, [m, k, n], Write::Store);
            for (at, found) in out.iter().enumerate() {
                let wanted = weights[at % n * k + at / n];
                // Half a step of bf16, and the last bit of the f32 that is rounded.
                let close = (found - wanted).abs() <= wanted.abs() * (0.5 / 128.0 + 1e-6);
                assert!(close, "{isa:?} {kind:?}: {found} for {wanted}");
            }
        }
    }
}

#[test]
fn gguf_tensors_of_the_wrong_size_are_refused() {
    let of = |rows, cols, kind, bytes: &[u8]| PackedLinear::gguf(rows, cols, kind, bytes, Inputs::Fine);
    for kind in KINDS {
        let (bytes, _) = gguf(kind, 4, 64);
        assert!(of(4, 64, kind, &bytes).is_some());
        assert!(of(4, 64, kind, &bytes[1..]).is_none());
        assert!(of(8, 32, kind, &bytes).is_some());
        assert!(of(16, 16, kind, &bytes).is_none());
        assert!(of(usize::MAX, 32, kind, &bytes).is_none());
        assert!(of(0, 32, kind, &[]).is_some());
    }
}

/// The weights that `packed` stands for: its products with unit vectors, without tiles, which would round them.
fn read_back(packed: &PackedLinear) -> Vec<f32> {
    let [n, k] = packed.shape();
    let mut unit = vec![0.0; k * k];
    (0..k).for_each(|i| unit[i * k + i] = 1.0);
    let mut out = vec![f32::NAN; k * n];
    raw::linear(Isa::best().min(Isa::Avx512Bf16), &unit, packed, &mut out);
    (0..n * k).map(|at| out[at % k * n + at / k]).collect()
}

#[test]
fn quantised_weights_stay_within_half_a_step() {
    let (n, k) = (40, 70);
    let w = numbers(n * k, 3);
    // Of blocks within -1..1: 1 / 127 and 2 / 15 a step at most, and the scale itself is rounded to 2^-11.
    close(&read_back(&int8(n, k, &w)), &w, 0.5 / 127.0 + 1e-3, "int8");
    close(&read_back(&q4(n, k, &w)), &w, 1.0 / 15.0 + 3e-3, "q4");
    let zeros = vec![0.0; n * k];
    assert_eq!(read_back(&int8(n, k, &zeros)), zeros);
    assert_eq!(read_back(&q4(n, k, &zeros)), zeros);
}

#[test]
fn rounding_of_inputs_is_bounded() {
    for isa in Isa::available() {
        for [m, k, n] in [[1, 100, 37], [9, 100, 37], [17, 100, 37], [45, 75, 33]] {
            let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
            let fine = (fine(n, k, &w), 32767.0);
            for (packed, steps) in [(int8(n, k, &w), 32767.0), fine, (q4(n, k, &w), 127.0)] {
                let w = read_back(&packed);
                let mut out = vec![f32::NAN; m * n];
                raw::linear(isa, &x, &packed, &mut out);
                let wanted = reference(&x, &w, [m, k, n]);
                for (at, (found, wanted)) in out.iter().zip(&wanted).enumerate() {
                    let weight: f32 = w[at % n * k..][..k].iter().map(|w| w.abs()).sum();
                    let step = match isa {
                        // Tiles multiply both factors rounded to bf16: half a step of 256 each.
                        Isa::Amx if m > 16 => 2.0 / 512.0,
                        _ => 0.5 / steps,
                    };
                    let bound = weight * step + 2e-5 * weight;
                    assert!((found - wanted).abs() <= bound, "{isa:?}: {found} for {wanted}, {bound} allowed");
                }
            }
        }
    }
}

#[test]
fn weights_that_no_scale_holds_are_refused() {
    let (n, k) = (20, 70);
    for (bad, in_int8, in_q4) in [
        (f32::NAN, false, false),
        (f32::INFINITY, false, false),
        (f32::NEG_INFINITY, false, false),
        (-1e7, false, false),
        (1e5, true, true),
        (-1e5, true, false),
        (1e-30, true, true),
    ] {
        for at in [0, 31, 64, n * k - 1] {
            let mut w = numbers(n * k, 2);
            w[at] = bad;
            assert_eq!(PackedLinear::int8(n, k, &w).is_some(), in_int8, "{bad} at {at}");
            assert_eq!(PackedLinear::q4(n, k, &w, Inputs::Fine).is_some(), in_q4, "{bad} at {at}");
        }
    }
    for kind in KINDS {
        let (mut bytes, _) = gguf(kind, 4, 64);
        bytes[kind.block_bytes()..][..2].copy_from_slice(&f16::NAN.to_le_bytes());
        assert!(PackedLinear::gguf(4, 64, kind, &bytes, Inputs::Fine).is_none(), "{kind:?}");
    }
}

#[test]
fn bad_inputs_spread_no_further_than_their_row() {
    for isa in Isa::available() {
        for rows in [1, 9, 40] {
            let (k, n) = (64, 20);
            let w = numbers(n * k, 2);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for packed in [int8(n, k, &w), fine(n, k, &w), q4(n, k, &w)] {
                    let mut x = vec![1.0; rows * k];
                    x[5] = bad;
                    let mut out = vec![0.0; rows * n];
                    raw::linear(isa, &x, &packed, &mut out);
                    assert!(out[..n].iter().all(|y| !y.is_finite()), "{isa:?} {bad}");
                    assert!(out[n..].iter().all(|y| y.is_finite()), "{isa:?} {bad}");
                }
            }
        }
    }
}

#[test]
fn rows_are_the_weights_that_products_use() {
    let (n, k) = (37, 70);
    let w = numbers(n * k, 3);
    for packed in [PackedLinear::f32(n, k, &w), PackedLinear::bf16(n, k, &w), int8(n, k, &w), fine(n, k, &w)] {
        let mut rows = vec![f32::NAN; n * k];
        rows.chunks_exact_mut(k).enumerate().for_each(|(i, row)| packed.row(i, row));
        close(&rows, &read_back(&packed), 1e-6, &format!("{packed:?}"));
    }
}

#[test]
fn turned_weights_are_the_same_on_every_path() {
    let (n, k) = (37, 70);
    let w = numbers(n * k, 3);
    let rows = |packed: &PackedLinear| {
        let [n, k] = packed.shape();
        let mut rows = vec![f32::NAN; n * k];
        rows.chunks_exact_mut(k).enumerate().for_each(|(i, row)| packed.row(i, row));
        rows
    };
    for isa in Isa::available() {
        for packed in [PackedLinear::f32(n, k, &w), PackedLinear::bf16(n, k, &w), int8(n, k, &w), fine(n, k, &w)] {
            let what = format!("{isa:?} {packed:?}");
            let turned = packed.turned(isa);
            let blocks = !matches!(packed.panels(), Panels::Bf16(_) | Panels::F32(_));
            assert_eq!(matches!(turned.panels(), Panels::Int8(_)), blocks && isa < Isa::Avx512Bf16, "{what}");
            // Of blocks within -1..1: half a step of 127, or of bf16, and the scale's own rounding.
            let tolerance = if blocks { 0.5 / 127.0 + 1e-3 } else { 0.0 };
            let wanted = rows(&packed);
            close(&rows(&turned), &transposed(&wanted, n, k), tolerance, &what);
            // The gradient of an input, of few rows and of many.
            for m in [1, 9, 40] {
                let grad = numbers(m * n, 4);
                let mut found = vec![f32::NAN; m * k];
                raw::linear(isa, &grad, &turned, &mut found);
                close(&found, &reference(&grad, &transposed(&wanted, n, k), [m, n, k]), 0.05, &what);
            }
        }
    }
}

#[test]
fn memory_is_what_the_names_say() {
    let w = numbers(32 * 64, 1);
    assert_eq!(int8(32, 64, &w).bytes() * 8, 32 * 64 * 17 / 2);
    let q4 = q4(32, 64, &w);
    assert_eq!(q4.bytes() * 8, 32 * 64 * 5);
    q4.transposed();
    let back = if Isa::best() < Isa::Avx512Bf16 { 32 * 64 * 17 / 2 } else { 32 * 64 * 16 };
    assert_eq!(q4.bytes() * 8, 32 * 64 * 5 + back);
}

#[test]
fn gradients_agree_with_burn() {
    let device = Device::flex().autodiff();
    let [batch, seq, k, n] = [2, 7, 64, 50];
    let w = numbers(n * k, 2);
    for packed in [int8(n, k, &w), fine(n, k, &w), q4(n, k, &w)] {
        let plain = Tensor::<2>::from_data(TensorData::new(read_back(&packed), [n, k]), &device);
        let x = tensor::<3>([batch, seq, k], 1, &device).require_grad();
        let push = tensor::<3>([batch, seq, n], 3, &device);
        let found = super::super::linear(x.clone(), &packed);
        let wanted = x.clone().reshape([batch * seq, k]).matmul(plain.transpose()).reshape([batch, seq, n]);
        let gradient = |y: Tensor<3>| {
            let mut gradients = (y * push.clone()).sum().backward();
            values(x.grad_remove(&mut gradients).expect("x is tracked"))
        };
        // The way back multiplies by the same weights rounded to eight bits or bf16.
        close(&gradient(found), &gradient(wanted), 0.05, "gradient of x");
    }
}

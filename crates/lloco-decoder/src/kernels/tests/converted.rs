//! Blocks of GGUF tensors that become blocks of 32 of another kind.

use super::super::cpu::Isa;
use super::super::pack::{Inputs, PackedLinear, Panels};
use super::super::products as raw;
use super::{close, numbers};
use crate::gguf::{BlockType, q4_k_group};
use half::f16;

const KINDS: [BlockType; 5] = [BlockType::Q4K, BlockType::Q5_0, BlockType::Q5_1, BlockType::Q5K, BlockType::Q6K];

/// Random blocks with these scales, and the weights that they hold.
fn gguf(kind: BlockType, count: usize, scale: f16, minimum: f16, seed: u32) -> (Vec<u8>, Vec<f32>) {
    let mut bytes: Vec<u8> =
        numbers(count * kind.block_bytes(), seed).iter().map(|x| (x * 128.0) as i8 as u8).collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        let at = if kind == BlockType::Q6K { 208 } else { 0 };
        block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        if matches!(kind, BlockType::Q4K | BlockType::Q5_1 | BlockType::Q5K) {
            block[2..4].copy_from_slice(&minimum.to_le_bytes());
        }
    }
    let mut weights = vec![0.0; count * kind.block_values()];
    kind.dequantize(&bytes, &mut weights);
    (bytes, weights)
}

/// `[rows, cols]` as files have them: scales of K blocks are six or eight bits times a smaller one.
fn usual(kind: BlockType, rows: usize, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let (scale, minimum) = match kind {
        BlockType::Q5_0 => (0.01, 0.0),
        BlockType::Q5_1 => (0.01, -0.15),
        BlockType::Q6K => (1e-4, 0.0),
        _ => (3e-4, 2e-3),
    };
    gguf(kind, rows * cols / kind.block_values(), f16::from_f32(scale), f16::from_f32(minimum), 5)
}

fn pack(kind: BlockType, rows: usize, cols: usize, bytes: &[u8]) -> Option<PackedLinear> {
    PackedLinear::gguf(rows, cols, kind, bytes, Inputs::Fine)
}

/// All rows, one after the other.
fn held(packed: &PackedLinear) -> Vec<f32> {
    let [rows, cols] = packed.shape();
    let mut held = vec![f32::NAN; rows * cols];
    held.chunks_exact_mut(cols).enumerate().for_each(|(n, row)| packed.row(n, row));
    held
}

fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |most, w| most.max(w.abs()))
}

/// `|found - wanted| / |wanted|`, as vectors.
fn distance(found: &[f32], wanted: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(wanted).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut wanted.iter().map(|x| f64::from(*x)))
}

/// The largest error that the table in `blocks` allows block `b` of 32 with these weights.
fn allowed(kind: BlockType, bytes: &[u8], b: usize, weights: &[f32]) -> f32 {
    match kind {
        BlockType::Q5_0 => 0.0,
        BlockType::Q4K => {
            let (scale, minimum, _) = q4_k_group(&bytes.as_chunks().0[b / 8], b % 8);
            (15.0 * scale + minimum) / 2048.0
        }
        _ => largest(weights) / 253.0,
    }
}

/// Against the weights that a file holds, with no more than each block's error.
#[test]
fn converted_blocks_multiply_as_they_decode() {
    for isa in Isa::available() {
        for kind in KINDS {
            for [m, k, n] in [[1, 256, 1], [3, 512, 37], [20, 768, 33], [130, 256, 70]] {
                let (bytes, weights) = usual(kind, n, k);
                let packed = pack(kind, n, k, &bytes).expect("fits");
                let x = numbers(m * k, 1);
                let mut out = vec![f32::NAN; m * n];
                raw::linear(isa, &x, &packed, &mut out);
                for (at, found) in out.iter().enumerate() {
                    let (x, row) = (&x[at / n * k..][..k], &weights[at % n * k..][..k]);
                    let wanted: f64 = x.iter().zip(row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let allowed: f32 = (0..k / 32)
                        .map(|b| {
                            let (x, block) = (&x[b * 32..][..32], &row[b * 32..][..32]);
                            let inputs: f32 = x.iter().map(|x| x.abs()).sum();
                            inputs * allowed(kind, &bytes, at % n * (k / 32) + b, block)
                        })
                        .sum();
                    let rounding = match isa {
                        // Tiles multiply both factors rounded to bf16: half a step of 256 each.
                        Isa::Amx if m > 16 => 2.0 / 512.0,
                        // Inputs are within -1..1, and have 16 bits.
                        _ => 0.5 / 32767.0 + 2e-5,
                    };
                    let allowed = allowed + rounding * row.iter().map(|w| w.abs()).sum::<f32>();
                    let close = (f64::from(*found) - wanted).abs() <= f64::from(allowed);
                    assert!(close, "{isa:?} {kind:?} {m} x {k} x {n}: {found} for {wanted}, {allowed} allowed");
                }
            }
        }
    }
}

#[test]
fn conversions_are_as_exact_as_they_say() {
    let (n, k) = (40, 512);
    for kind in KINDS {
        let (bytes, weights) = usual(kind, n, k);
        let packed = pack(kind, n, k, &bytes).expect("fits");
        let mut worst = 0.0_f32;
        for (b, (found, wanted)) in held(&packed).chunks_exact(32).zip(weights.chunks_exact(32)).enumerate() {
            close(found, wanted, allowed(kind, &bytes, b, wanted), &format!("{kind:?}"));
            let off = found.iter().zip(wanted).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
            worst = worst.max(off / largest(wanted));
        }
        assert_eq!(worst > 0.0, kind != BlockType::Q5_0, "{kind:?}: {worst}");
        let bits = if kind == BlockType::Q4K { 10 } else { 17 };
        assert_eq!(packed.bytes(), 48 * k * bits / 16, "{kind:?}");
    }
}

#[test]
fn the_smallest_scales_of_a_file_do_not_vanish() {
    let (n, k) = (16, 512);
    for kind in KINDS {
        for units in [1_u16, 2, 3, 40, 900] {
            let scale = f16::from_bits(units);
            let (bytes, weights) = gguf(kind, n * k / kind.block_values(), scale, scale, 6);
            let packed = pack(kind, n, k, &bytes).expect("fits");
            for (found, wanted) in held(&packed).chunks_exact(32).zip(weights.chunks_exact(32)) {
                let largest = largest(wanted);
                let exact = matches!(kind, BlockType::Q4K | BlockType::Q5_0) && largest < 6e-5 || largest < 7.5e-6;
                let allowed = if exact { 0.0 } else { largest / 127.0 };
                close(found, wanted, allowed, &format!("{kind:?} of {units}"));
            }
        }
    }
}

#[test]
fn blocks_whose_scales_do_not_fit_are_refused() {
    for kind in KINDS {
        let of = |scale, minimum| {
            let (bytes, weights) = gguf(kind, 4 * 512 / kind.block_values(), scale, minimum, 7);
            (pack(kind, 4, 512, &bytes).is_some(), weights.iter().all(|w| w.is_finite()))
        };
        assert_eq!(of(f16::ONE, f16::ONE), (true, true), "{kind:?}");
        // Finite in the file, and beyond f16 as six or eight bits times a scale; five bits never are.
        let fits = matches!(kind, BlockType::Q5_0 | BlockType::Q5_1);
        assert_eq!(of(f16::MAX, f16::ONE), (fits, true), "{kind:?}");
        if kind == BlockType::Q4K {
            assert_eq!(of(f16::ONE, f16::MAX), (false, true));
        }
        for scale in [f16::NAN, f16::INFINITY] {
            assert_eq!(of(scale, f16::ONE), (false, false), "{kind:?} {scale}");
        }
    }
}

#[test]
fn converted_tensors_of_the_wrong_size_are_refused() {
    for kind in KINDS {
        let (bytes, _) = usual(kind, 4, 512);
        assert!(pack(kind, 4, 512, &bytes).is_some());
        assert!(pack(kind, 4, 512, &bytes[1..]).is_none());
        assert!(pack(kind, 8, 256, &bytes).is_some());
        assert!(pack(kind, 128, 16, &bytes).is_none());
        assert!(pack(kind, 16, 128, &bytes).is_none() || kind.block_values() == 32);
        assert!(pack(kind, usize::MAX, 256, &bytes).is_none());
        assert!(pack(kind, 0, 256, &[]).is_some());
    }
    for kind in [BlockType::F32, BlockType::F16, BlockType::Bf16] {
        assert!(pack(kind, 1, 256, &vec![0; 256 * kind.block_bytes()]).is_none());
    }
}

#[test]
fn four_bit_kinds_take_the_inputs_that_are_asked_for() {
    for kind in KINDS {
        let (bytes, _) = usual(kind, 16, 256);
        let packed = PackedLinear::gguf(16, 256, kind, &bytes, Inputs::Coarse).expect("fits");
        assert_eq!(matches!(packed.panels(), Panels::Q4(_, Inputs::Coarse)), kind == BlockType::Q4K, "{kind:?}");
    }
}

/// Weights as llama.cpp's simplest way makes `Q6_K` of them: each group of sixteen has a scale of its own, its largest number
/// is 32 steps, and the scales of a block are multiples of a 127th of the largest.
fn q6_k(weights: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for weights in weights.as_chunks::<256>().0 {
        let scales: Vec<f32> = weights.chunks(16).map(|group| largest(group) / 32.0).collect();
        let d = f16::from_f32(largest(&scales) / 127.0);
        let steps: Vec<i8> = scales.iter().map(|scale| (scale / d.to_f32()).round() as i8).collect();
        let mut block = [0_u8; 210];
        for (at, w) in weights.iter().enumerate() {
            let step = d.to_f32() * f32::from(steps[at / 16]);
            let number = ((w / step).round().clamp(-32.0, 31.0) + 32.0) as u8;
            let (half, run, i) = (at / 128, at / 32 % 4, at % 32);
            block[half * 64 + run % 2 * 32 + i] |= (number & 15) << (run / 2 * 4);
            block[128 + half * 32 + i] |= number >> 4 << (run * 2);
        }
        block[192..208].copy_from_slice(bytemuck::cast_slice(&steps));
        block[208..].copy_from_slice(&d.to_le_bytes());
        bytes.extend(block);
    }
    bytes
}

/// Prints the figures of docs/results/weights.md: `cargo nextest run -p lloco-decoder --no-capture what_bytes_add_to_q6_k`.
#[test]
fn what_bytes_add_to_q6_k_is_little_beside_its_own_rounding() {
    let (m, k, n) = (4, 2048, 256);
    // The sum of four uniform numbers is near enough to normal.
    let normal = |len, seed| -> Vec<f32> { numbers(4 * len, seed).chunks(4).map(|four| four.iter().sum()).collect() };
    let (x, w) = (normal(m * k, 1), normal(n * k, 2));
    let bytes = q6_k(&w);
    let mut stored = vec![0.0; n * k];
    BlockType::Q6K.dequantize(&bytes, &mut stored);
    let packed = pack(BlockType::Q6K, n, k, &bytes).expect("fits");
    let isa = Isa::best().min(Isa::Avx512Vnni);
    let times = |packed: &PackedLinear| {
        let mut out = vec![f32::NAN; m * n];
        raw::linear(isa, &x, packed, &mut out);
        out
    };
    let [file, halves, blocks] =
        [PackedLinear::f32(n, k, &stored), PackedLinear::bf16(n, k, &stored), packed].map(|packed| times(&packed));
    let original = times(&PackedLinear::f32(n, k, &w));
    let [own, halves, blocks] =
        [distance(&file, &original), distance(&halves, &file), distance(&blocks, &file)].map(|d| 100.0 * d);
    eprintln!(
        "Q6_K to the weights it was made of: {own:.2} %; to Q6_K, bf16: {halves:.2} %, eight-bit blocks: {blocks:.2} %"
    );
    assert!(own < 3.0 && blocks < own / 3.0 && halves < blocks, "{own} {halves} {blocks}");
}

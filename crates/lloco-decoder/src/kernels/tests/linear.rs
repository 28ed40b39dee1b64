use super::super::cpu::Isa;
use super::super::matmul::Write;
use super::super::norm::{self, Norm};
use super::super::pack::{Inputs, PackedLinear, Panels};
use super::super::products as raw;
use super::super::tiles::{self, Halves, Weights, emulated};
use super::{close, numbers, tensor, values};
use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;

/// Rows, inputs, outputs: one of each, odd ones, a panel and a bit, a stretch and a bit.
const SIZES: [[usize; 3]; 11] = [
    [1, 1, 1],
    [1, 33, 17],
    [1, 576, 100],
    [2, 64, 40],
    [3, 31, 100],
    [5, 576, 192],
    [7, 96, 33],
    [8, 128, 64],
    [13, 70, 65],
    [29, 576, 300],
    [130, 300, 35],
];

fn round(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

fn reference(x: &[f32], w: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let dot = |i: usize, j: usize| (0..k).map(|c| f64::from(x[i * k + c]) * f64::from(w[j * k + c])).sum::<f64>();
    (0..m * n).map(|at| dot(at / n, at % n) as f32).collect()
}

#[test]
fn every_path_multiplies() {
    for isa in Isa::available() {
        for [m, k, n] in SIZES {
            let what = format!("{isa:?} {m} x {k} x {n}");
            let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
            let mut out = vec![f32::NAN; m * n];
            raw::linear(isa, &x, &PackedLinear::f32(n, k, &w), &mut out);
            close(&out, &reference(&x, &w, [m, k, n]), 2e-5, &what);

            let w: Vec<f32> = w.into_iter().map(round).collect();
            // These two round x as well.
            let x: Vec<f32> = if isa >= Isa::Avx512Bf16 { x.into_iter().map(round).collect() } else { x };
            raw::linear(isa, &x, &PackedLinear::bf16(n, k, &w), &mut out);
            close(&out, &reference(&x, &w, [m, k, n]), 2e-5, &format!("{what} bf16"));
        }
    }
}

#[test]
fn the_walk_over_tiles_covers_everything() {
    // The last one has more panels than lie at hand at once.
    for [m, k, n] in SIZES.into_iter().chain([[33, 8192, 200]]) {
        let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
        let (x, w): (Vec<f32>, Vec<f32>) = (x.into_iter().map(round).collect(), w.into_iter().map(round).collect());
        let packed = PackedLinear::bf16(n, k, &w);
        let Panels::Bf16(units) = packed.panels() else { panic!("packed as bf16") };
        let mut wanted = reference(&x, &w, [m, k, n]);
        let tolerance = 2e-5 * (k as f32 / 256.0).max(1.0);
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; m * n];
            emulated::linear(isa, &x, Weights::Halves(units), &mut out, [m, k, n], Write::Store);
            close(&out, &wanted, tolerance, &format!("{isa:?} {m} x {k} x {n}"));
        }
        let before = numbers(m * n, 3);
        wanted.iter_mut().zip(&before).for_each(|(wanted, before)| *wanted += before);
        for isa in Isa::available() {
            let mut out = before.clone();
            emulated::linear(isa, &x, Weights::Halves(units), &mut out, [m, k, n], Write::Add);
            close(&out, &wanted, tolerance, &format!("{isa:?} {m} x {k} x {n} added"));
        }
    }
}

/// Norm, gate and up, SwiGLU and down, plainly, in f64 where it counts.
fn fed_forward(x: &[f32], gamma: &[f32], [gate, up, down]: [&[f32]; 3], [rows, k, inner]: [usize; 3]) -> Vec<f32> {
    let mut normed = vec![0.0; rows * k];
    norm::rms_norm(Isa::Portable, x, gamma, 1e-5, &mut normed);
    let gates = reference(&normed, gate, [rows, k, inner]);
    let ups = reference(&normed, up, [rows, k, inner]);
    let mixed: Vec<f32> = gates.iter().zip(&ups).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    let terms = reference(&mixed, down, [rows, inner, k]);
    x.iter().zip(terms).map(|(x, term)| x + term).collect()
}

#[test]
fn a_layers_second_half_is_its_parts() {
    for isa in Isa::available() {
        for [rows, k, inner] in [[1, 44, 75], [17, 44, 75], [33, 44, 48], [64, 64, 96], [40, 31, 1]] {
            let what = format!("{isa:?} {rows} x {k} x {inner}");
            let (x, gamma) = (numbers(rows * k, 1), numbers(k, 2));
            let [gate, up, down] =
                [3, 4, 5].map(|seed| numbers(inner * k, seed).into_iter().map(round).collect::<Vec<_>>());
            let wanted = fed_forward(&x, &gamma, [&gate, &up, &down], [rows, k, inner]);
            let norm = Norm { gamma: &gamma, eps: 1e-5 };
            let (gate, up) = ((inner, k, gate), (inner, k, up));
            for (pack, tolerance) in
                [(PackedLinear::f32 as fn(usize, usize, &[f32]) -> PackedLinear, 1e-5), (PackedLinear::bf16, 0.02)]
            {
                let [gate, up] = [&gate, &up].map(|(n, k, w)| pack(*n, *k, w));
                let down = pack(k, inner, &down);
                let mut found = x.clone();
                raw::add_feed_forward(isa, &mut found, norm, [&gate, &up, &down]);
                let largest = wanted.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                close(&found, &wanted, tolerance * largest, &what);
                let mut added = x.clone();
                let mixed = numbers(rows * inner, 6);
                raw::add_linear(isa, &mixed, &down, &mut added);
                let mut terms = vec![f32::NAN; rows * k];
                raw::linear(isa, &mixed, &down, &mut terms);
                terms.iter_mut().zip(&x).for_each(|(term, x)| *term += x);
                close(&added, &terms, 1e-5, &what);
            }
        }
    }
}

#[test]
fn gate_and_up_meet_in_tiles() {
    for [rows, k, n] in [[17, 44, 75], [33, 44, 48], [64, 64, 96], [1, 31, 1], [40, 64, 33]] {
        let (x, gate, up) = (numbers(rows * k, 1), numbers(n * k, 2), numbers(n * k, 3));
        let [x, gate, up] = [x, gate, up].map(|all| all.into_iter().map(round).collect::<Vec<_>>());
        let [gates, ups] = [&gate, &up].map(|w| reference(&x, w, [rows, k, n]));
        let packed = [&gate, &up].map(|w| PackedLinear::bf16(n, k, w));
        let weights = packed.each_ref().map(|w| match w.panels() {
            Panels::Bf16(units) => Weights::Halves(units),
            _ => panic!("packed as bf16"),
        });
        for isa in Isa::available() {
            let halves = Halves::new(isa, &x, rows, k);
            let found = tiles::gated_with(emulated::Tiles, isa, &halves, weights, [rows, k, n]);
            for r in 0..rows {
                let row: &[bf16] = bytemuck::cast_slice(found.row(r));
                for (c, found) in row.iter().enumerate() {
                    let wanted =
                        if c < n { gates[r * n + c] / (1.0 + (-gates[r * n + c]).exp()) * ups[r * n + c] } else { 0.0 };
                    assert!(
                        (found.to_f32() - wanted).abs() <= wanted.abs() / 128.0 + 1e-4,
                        "{isa:?} {rows} x {k} x {n} at {r}, {c}"
                    );
                }
            }
        }
    }
}

#[test]
fn thread_counts_do_not_matter() {
    let [m, k, n] = [100, 64, 200];
    let (x, w) = (numbers(m * k, 1), PackedLinear::bf16(n, k, &numbers(n * k, 2)));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut out = vec![f32::NAN; m * n];
        pool.install(|| raw::linear(Isa::best(), &x, &w, &mut out));
        out
    };
    assert_eq!(with(1), with(3));
    assert_eq!(with(1), with(40));
}

#[test]
fn bad_weights_spread_and_nothing_else() {
    for isa in Isa::available() {
        for rows in [1, 20] {
            let (k, n) = (40, 20);
            let mut w = numbers(n * k, 2);
            w[3 * k + 5] = f32::NAN;
            w[7 * k + 39] = f32::INFINITY;
            for packed in [PackedLinear::bf16(n, k, &w), PackedLinear::f32(n, k, &w)] {
                let mut out = vec![0.0; rows * n];
                raw::linear(isa, &vec![1.0; rows * k], &packed, &mut out);
                for (at, y) in out.iter().enumerate() {
                    match at % n {
                        3 => assert!(y.is_nan(), "{isa:?}"),
                        7 => assert_eq!(*y, f32::INFINITY, "{isa:?}"),
                        _ => assert!(y.is_finite(), "{isa:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn packing_states_its_memory() {
    let w = numbers(32 * 64, 1);
    let packed = PackedLinear::bf16(32, 64, &w);
    assert_eq!((packed.shape(), packed.bytes()), ([32, 64], 2 * 32 * 64));
    assert_eq!(PackedLinear::f32(32, 64, &w).bytes(), 4 * 32 * 64);
    assert_eq!(packed.transposed().shape(), [64, 32]);
    assert_eq!(packed.bytes(), 2 * 2 * 32 * 64);
}

#[test]
fn tensors_and_gradients_agree_with_burn() {
    let device = Device::flex().autodiff();
    let [batch, seq, k, n] = [2, 7, 40, 50];
    let w: Vec<f32> = numbers(n * k, 2).into_iter().map(round).collect();
    let plain = Tensor::<2>::from_data(TensorData::new(w.clone(), [n, k]), &device);
    let cases = [(PackedLinear::f32(n, k, &w), 1e-5), (PackedLinear::bf16(n, k, &w), 0.05)];
    for (packed, tolerance) in cases {
        let x = tensor::<3>([batch, seq, k], 1, &device).require_grad();
        let push = tensor::<3>([batch, seq, n], 3, &device);
        let found = super::super::linear(x.clone(), &packed);
        let wanted = x.clone().reshape([batch * seq, k]).matmul(plain.clone().transpose()).reshape([batch, seq, n]);
        close(&values(found.clone()), &values(wanted.clone()), tolerance, "linear");
        let gradient = |y: Tensor<3>| {
            let mut gradients = (y * push.clone()).sum().backward();
            values(x.grad_remove(&mut gradients).expect("x is tracked"))
        };
        close(&gradient(found), &gradient(wanted), tolerance, "gradient of x");
    }
}

#[test]
fn strided_inputs_are_read_right() {
    let device = Device::flex();
    let w = PackedLinear::f32(20, 8, &numbers(160, 2));
    let x = tensor::<3>([2, 8, 5], 1, &device).swap_dims(1, 2);
    let dense = Tensor::from_data(x.to_data(), &device);
    assert_eq!(values(super::super::linear(x, &w)), values(super::super::linear(dense, &w)));
}

#[test]
fn several_weights_at_once_give_what_each_gives() {
    let k = 96;
    let [a, b, c] = [(40, 1), (16, 2), (200, 3)].map(|(n, seed)| (n, numbers(n * k, seed)));
    let of = |kind: usize, (n, w): &(usize, Vec<f32>)| match kind {
        0 => PackedLinear::f32(*n, k, w),
        1 => PackedLinear::bf16(*n, k, w),
        2 => PackedLinear::int8(*n, k, w).expect("finite"),
        _ => PackedLinear::q4(*n, k, w, Inputs::Fine).expect("finite"),
    };
    for rows in [1, 2, 8, 30] {
        for kinds in [[0, 0, 0], [1, 1, 1], [2, 3, 1], [3, 3, 0]] {
            let x = tensor::<3>([1, rows, k], 4, &Device::flex());
            let weights = [of(kinds[0], &a), of(kinds[1], &b), of(kinds[2], &c)];
            let alone = weights.each_ref().map(|w| values(super::super::linear(x.clone(), w)));
            let [first, second, third] = weights.each_ref();
            for ready in [false, true] {
                let all = || {
                    let three = super::super::linear_triple(x.clone(), [first, second, third]);
                    let two = super::super::linear_pair(x.clone(), [second, third]);
                    (three.map(values), two.map(values))
                };
                let (three, two) = if ready { super::super::ready(all) } else { all() };
                assert_eq!(three, alone, "{rows} {kinds:?}");
                assert_eq!(two[..], alone[1..], "{rows} {kinds:?}");
            }
        }
    }
}

use super::super::cpu::{Isa, Kernel};
use super::super::simd::{Block, Simd};
use super::super::{norm, rms_norm, rope, swiglu};
use super::{close, numbers, tensor, values};
use burn::tensor::{Device, Tensor, activation, s};

#[test]
fn exponentials_are_exact_enough() {
    struct Exp(Block);
    impl Kernel for Exp {
        type Out = Block;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Block {
            let mut out = self.0;
            s.store(&mut out, s.exp(s.load(&self.0)));
            out
        }
    }
    for isa in Isa::available() {
        for step in 0..11_000 {
            let x: Block = std::array::from_fn(|lane| -87.3 + (16 * step + lane) as f32 * 0.001);
            for (x, e) in x.into_iter().zip(isa.run(Exp(x))) {
                let wanted = f64::from(x).exp();
                assert!((f64::from(e) - wanted).abs() < 2e-7 * wanted, "{isa:?}: e^{x} = {e}");
            }
        }
        let mut x = [0.0; 16];
        x[..5].copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -100.0, 88.8]);
        let e = isa.run(Exp(x));
        assert!(e[0].is_nan(), "{isa:?}");
        assert_eq!(e[1..6], [f32::INFINITY, 0.0, 0.0, f32::INFINITY, 1.0], "{isa:?}");
    }
}

#[test]
fn coarse_functions_are_exact_enough_for_bf16() {
    struct Coarse(Block);
    impl Kernel for Coarse {
        type Out = [Block; 2];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [Block; 2] {
            let mut out = [self.0; 2];
            s.store(&mut out[0], s.exp2_coarse(s.load(&self.0)));
            s.store(&mut out[1], s.silu_coarse(s.load(&self.0)));
            out
        }
    }
    for isa in Isa::available() {
        for step in 0..10_000 {
            let x: Block = std::array::from_fn(|lane| -120.0 + (16 * step + lane) as f32 * 0.001);
            let [powers, silus] = isa.run(Coarse(x));
            for (x, (power, silu)) in x.into_iter().zip(powers.into_iter().zip(silus)) {
                let wanted = f64::from(x).exp2();
                assert!((f64::from(power) - wanted).abs() < 1e-4 * wanted, "{isa:?}: 2^{x} = {power}");
                let wanted = f64::from(x) / (1.0 + (-f64::from(x)).exp());
                // Below e^-87 a logistic function is nothing.
                assert!((f64::from(silu) - wanted).abs() < 2e-4 * wanted.abs() + 1e-35, "{isa:?}: silu({x}) = {silu}");
            }
        }
        let mut x = [0.0; 16];
        x[..4].copy_from_slice(&[f32::NAN, f32::NEG_INFINITY, -1e6, 1e6]);
        let [powers, silus] = isa.run(Coarse(x));
        assert!(powers[0].is_nan() && silus[0].is_nan(), "{isa:?}");
        assert_eq!((powers[1], powers[2], silus[3]), (0.0, 0.0, 1e6), "{isa:?}");
    }
}

#[test]
fn sums_of_many_registers_are_those_of_each() {
    struct Sums([Block; 16]);
    impl Kernel for Sums {
        type Out = Block;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Block {
            let mut all = [s.splat(0.0); 16];
            for (x, block) in all.iter_mut().zip(&self.0) {
                *x = s.load(block);
            }
            let mut out = [0.0; 16];
            s.store(&mut out, s.sum_each(&all));
            out
        }
    }
    for isa in Isa::available() {
        let blocks: [Block; 16] = std::array::from_fn(|i| std::array::from_fn(|j| (i * i * 100 + j * j) as f32));
        let wanted: Vec<f32> = blocks.iter().map(|block| block.iter().sum()).collect();
        assert_eq!(isa.run(Sums(blocks)).to_vec(), wanted, "{isa:?}");
    }
}

#[test]
fn norms_agree_on_every_path() {
    for isa in Isa::available() {
        for width in [1, 5, 16, 64, 100] {
            let (x, gamma) = (numbers(7 * width, 1), numbers(width, 2));
            let mut out = vec![f32::NAN; 7 * width];
            norm::rms_norm(isa, &x, &gamma, 1e-5, &mut out);
            let wanted: Vec<f32> = x
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                    let scale = 1.0 / (mean + 1e-5).sqrt();
                    row.iter().zip(&gamma).map(move |(x, g)| (f64::from(*x) * scale * f64::from(*g)) as f32)
                })
                .collect();
            close(&out, &wanted, 1e-6, &format!("{isa:?} {width}"));
        }
    }
}

/// Checks value and gradient of `found` against `wanted` at some `x`.
fn check<const D: usize>(
    shape: [usize; D],
    found: impl Fn(Tensor<D>) -> Tensor<D>,
    wanted: impl Fn(Tensor<D>) -> Tensor<D>,
    what: &str,
) {
    let device = Device::flex().autodiff();
    let x = tensor(shape, 1, &device).mul_scalar(3.0).require_grad();
    let push = tensor(shape, 9, &device);
    let outcome = |y: Tensor<D>| {
        let value = values(y.clone());
        let mut gradients = (y * push.clone()).sum().backward();
        (value, values(x.grad_remove(&mut gradients).expect("x is tracked")))
    };
    let (found, wanted) = (outcome(found(x.clone())), outcome(wanted(x.clone())));
    close(&found.0, &wanted.0, 1e-5, what);
    close(&found.1, &wanted.1, 2e-5, &format!("gradient of {what}"));
}

#[test]
fn norms_and_their_gradients_agree_with_burn() {
    let gamma = tensor::<1>([50], 2, &Device::flex());
    check(
        [3, 4, 50],
        |x: Tensor<3>| rms_norm(x, gamma.clone(), 1e-5),
        |x| {
            let scale = (x.clone() * x.clone()).mean_dim(2).add_scalar(1e-5).sqrt();
            x / scale * Tensor::from_inner(gamma.clone()).unsqueeze()
        },
        "norm",
    );
}

#[test]
fn swiglu_and_its_gradients_agree_with_burn() {
    let other = Tensor::from_inner(tensor::<3>([2, 3, 37], 4, &Device::flex()));
    let shape = [2, 3, 37];
    let silu = activation::silu;
    check(shape, |x| swiglu(x, other.clone()), |x| silu(x) * other.clone(), "gate");
    check(shape, |x| swiglu(other.clone(), x), |x| silu(other.clone()) * x, "up");
    check(shape, |x| swiglu(x.clone(), x), |x| silu(x.clone()) * x, "gate and up at once");
}

#[test]
fn rotations_and_their_gradients_agree_with_burn() {
    let device = Device::flex();
    let [batch, seq, heads, dim] = [2, 5, 3, 20];
    let (cos, sin) = (tensor::<2>([40, dim / 2], 5, &device), tensor::<2>([40, dim / 2], 6, &device));
    // The second sequence is padded by 8: its first row stands at 0 twice over.
    let (offset, padding) = (7, [0, 8]);
    let at = |table: &Tensor<2>| {
        let row = |b: usize, i: usize| {
            let position = (offset + i).saturating_sub(padding[b]);
            table.clone().slice(s![position..position + 1, ..])
        };
        let rows = (0..batch).flat_map(|b| (0..seq).map(move |i| (b, i))).map(|(b, i)| row(b, i)).collect();
        Tensor::from_inner(Tensor::cat(rows, 0).reshape([batch, seq, 1, dim / 2]))
    };
    check(
        [batch, seq, heads, dim],
        |x: Tensor<4>| rope(x, cos.clone(), sin.clone(), offset, &padding),
        |x| {
            let low = x.clone().slice(s![.., .., .., ..dim / 2]);
            let high = x.slice(s![.., .., .., dim / 2..]);
            let turned_low = low.clone() * at(&cos) - high.clone() * at(&sin);
            Tensor::cat(vec![turned_low, high * at(&cos) + low * at(&sin)], 3)
        },
        "rotation",
    );
}

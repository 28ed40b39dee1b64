//! RMSNorm over rows, forward and input gradient.

use super::cpu::{Isa, Kernel};
use super::rows::each_run;
use super::simd::{LANES, Simd};
use super::tiles::{DEPTH, Halves, Step, round_step};

/// `out = x / sqrt(mean(x^2) + eps) * gamma`, for each row of `gamma.len()` numbers.
pub(crate) fn rms_norm(isa: Isa, x: &[f32], gamma: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    each_run(out, gamma.len(), |first, out| {
        let x = &x[first * gamma.len()..][..out.len()];
        isa.run(Forward { x, gamma, eps, out });
    });
}

/// The weights of a norm, and what keeps it from dividing by 0.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) gamma: &'a [f32],
    pub(crate) eps: f32,
}

/// [`rms_norm`], rounded to bf16.
pub(crate) fn rms_norm_halves(isa: Isa, x: &[f32], norm: Norm<'_>) -> Halves {
    let width = norm.gamma.len();
    Halves::fill(x.len().checked_div(width).unwrap_or(0), width, |first, steps| {
        isa.run(Rounded { x: &x[first * width..], norm, steps });
    })
}

struct Rounded<'a> {
    x: &'a [f32],
    norm: Norm<'a>,
    /// Of whole rows.
    steps: &'a mut [Step],
}

impl Kernel for Rounded<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Norm { gamma, eps } = self.norm;
        let depth = gamma.len().div_ceil(DEPTH);
        for (x, steps) in self.x.chunks_exact(gamma.len()).zip(self.steps.chunks_exact_mut(depth)) {
            let scale = s.splat(inverse_rms(s, x, eps));
            for ((x, gamma), step) in x.chunks(DEPTH).zip(gamma.chunks(DEPTH)).zip(steps) {
                let mut numbers = [0.0; DEPTH];
                for ((x, gamma), to) in x.chunks(LANES).zip(gamma.chunks(LANES)).zip(numbers.as_chunks_mut().0) {
                    s.store(to, s.mul(s.mul(s.load_part(x), scale), s.load_part(gamma)));
                }
                round_step(s, &numbers, step);
            }
        }
    }
}

/// The gradient of `x`, given that of the output.
pub(crate) fn rms_norm_backward(isa: Isa, x: &[f32], gamma: &[f32], eps: f32, grad: &[f32], out: &mut [f32]) {
    assert_eq!((x.len(), grad.len()), (out.len(), out.len()));
    each_run(out, gamma.len(), |first, out| {
        let run = first * gamma.len()..first * gamma.len() + out.len();
        isa.run(Backward { x: &x[run.clone()], gamma, eps, grad: &grad[run], out });
    });
}

struct Forward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.gamma.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let scale = s.splat(inverse_rms(s, x, self.eps));
            for ((x, gamma), out) in x.chunks(LANES).zip(self.gamma.chunks(LANES)).zip(out.chunks_mut(LANES)) {
                let y = s.mul(s.mul(s.load_part(x), scale), s.load_part(gamma));
                s.store_part(out, y);
            }
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    eps: f32,
    grad: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // With r = 1 / rms: dx = r (g gamma - x r^2 mean(g gamma x)).
        let width = self.gamma.len();
        let rows = self.x.chunks_exact(width).zip(self.grad.chunks_exact(width));
        for ((x, grad), out) in rows.zip(self.out.chunks_exact_mut(width)) {
            let r = inverse_rms(s, x, self.eps);
            let mut dot = s.splat(0.0);
            for ((x, grad), gamma) in x.chunks(LANES).zip(grad.chunks(LANES)).zip(self.gamma.chunks(LANES)) {
                dot = s.fma(s.mul(s.load_part(grad), s.load_part(gamma)), s.load_part(x), dot);
            }
            let pull = s.splat(-r * r * (s.sum(dot) / width as f32));
            let inputs = x.chunks(LANES).zip(grad.chunks(LANES)).zip(self.gamma.chunks(LANES));
            for (((x, grad), gamma), out) in inputs.zip(out.chunks_mut(LANES)) {
                let push = s.mul(s.load_part(grad), s.load_part(gamma));
                s.store_part(out, s.mul(s.fma(s.load_part(x), pull, push), s.splat(r)));
            }
        }
    }
}

#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let mut sums = [s.splat(0.0); 2];
    for pair in x.chunks(2 * LANES) {
        for (part, sum) in pair.chunks(LANES).zip(&mut sums) {
            let part = s.load_part(part);
            *sum = s.fma(part, part, *sum);
        }
    }
    1.0 / (s.sum(s.add(sums[0], sums[1])) / x.len() as f32 + eps).sqrt()
}

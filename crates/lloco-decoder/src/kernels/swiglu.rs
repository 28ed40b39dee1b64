//! `silu(gate) * up`, forward and gradients.

use super::cpu::{Isa, Kernel};
use super::rows::{each_run, each_run_of_two};
use super::simd::{LANES, Simd};

/// `out = gate / (1 + e^-gate) * up`.
pub(crate) fn swiglu(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!((gate.len(), up.len()), (out.len(), out.len()));
    each_run(out, LANES, |first, out| {
        let run = first * LANES..first * LANES + out.len();
        isa.run(Forward { gate: &gate[run.clone()], up: &up[run], out });
    });
}

/// The gradients of `gate` and `up`, given that of the output.
pub(crate) fn swiglu_backward(
    isa: Isa,
    gate: &[f32],
    up: &[f32],
    grad: &[f32],
    gate_grad: &mut [f32],
    up_grad: &mut [f32],
) {
    let len = gate_grad.len();
    assert_eq!((gate.len(), up.len(), grad.len()), (len, len, len));
    each_run_of_two(gate_grad, up_grad, LANES, |first, gate_grad, up_grad| {
        let run = first * LANES..first * LANES + gate_grad.len();
        let (gate, up, grad) = (&gate[run.clone()], &up[run.clone()], &grad[run]);
        isa.run(Backward { gate, up, grad, gate_grad, up_grad });
    });
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for ((gate, up), out) in self.gate.chunks(LANES).zip(self.up.chunks(LANES)).zip(self.out.chunks_mut(LANES)) {
            let (silu, _) = s.silu(s.load_part(gate));
            s.store_part(out, s.mul(silu, s.load_part(up)));
        }
    }
}

struct Backward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    grad: &'a [f32],
    gate_grad: &'a mut [f32],
    up_grad: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.gate.chunks(LANES).zip(self.up.chunks(LANES)).zip(self.grad.chunks(LANES));
        let outputs = self.gate_grad.chunks_mut(LANES).zip(self.up_grad.chunks_mut(LANES));
        for (((gate, up), grad), (gate_grad, up_grad)) in inputs.zip(outputs) {
            let (gate, up, grad) = (s.load_part(gate), s.load_part(up), s.load_part(grad));
            let (silu, sigmoid) = s.silu(gate);
            // silu' = sigmoid + silu (1 - sigmoid).
            let slope = s.fma(silu, s.sub(s.splat(1.0), sigmoid), sigmoid);
            s.store_part(gate_grad, s.mul(s.mul(grad, up), slope));
            s.store_part(up_grad, s.mul(grad, silu));
        }
    }
}

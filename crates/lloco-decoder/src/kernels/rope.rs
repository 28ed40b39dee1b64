//! Rotary position embedding in the rotate-half convention: of `dim` numbers, `i` and `i + dim / 2` turn together.

use super::cpu::{Isa, Kernel};
use super::rows::each_run;
use super::simd::{LANES, Simd};

/// Where rows stand, and the tables `[positions, dim / 2]`.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    /// Rows of a sequence, heads of a row, numbers of a head.
    pub(crate) seq: usize,
    pub(crate) heads: usize,
    pub(crate) dim: usize,
    /// Position of the first row, left padding aside.
    pub(crate) offset: usize,
    /// Left padding of each sequence; empty for none.
    pub(crate) padding: &'a [usize],
    /// 1 to rotate, -1 to rotate back (the gradient).
    pub(crate) sense: f32,
}

/// Rotates `x` `[batch, seq, heads, dim]` into `out`.
///
/// # Panics
/// If a position lies beyond the tables.
pub(crate) fn rope(isa: Isa, x: &[f32], rotation: Rotation<'_>, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let width = rotation.heads * rotation.dim;
    each_run(out, width, |first, out| isa.run(Run { x: &x[first * width..][..out.len()], rotation, first, out }));
}

struct Run<'a> {
    x: &'a [f32],
    rotation: Rotation<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Run<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Rotation { cos, sin, seq, heads, dim, offset, padding, sense } = self.rotation;
        let (width, half) = (heads * dim, dim / 2);
        let sense = s.splat(sense);
        for (i, (x, out)) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)).enumerate() {
            let (sequence, row) = ((self.first + i) / seq, (self.first + i) % seq);
            let position = (offset + row).saturating_sub(padding.get(sequence).copied().unwrap_or(0));
            let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
            for (x, out) in x.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
                let ((low, high), (out_low, out_high)) = (x.split_at(half), out.split_at_mut(half));
                let inputs = low.chunks(LANES).zip(high.chunks(LANES)).zip(cos.chunks(LANES).zip(sin.chunks(LANES)));
                let outputs = out_low.chunks_mut(LANES).zip(out_high.chunks_mut(LANES));
                for (((low, high), (cos, sin)), (out_low, out_high)) in inputs.zip(outputs) {
                    let (low, high, cos) = (s.load_part(low), s.load_part(high), s.load_part(cos));
                    let sin = s.mul(s.load_part(sin), sense);
                    s.store_part(out_low, s.sub(s.mul(low, cos), s.mul(high, sin)));
                    s.store_part(out_high, s.fma(high, cos, s.mul(low, sin)));
                }
            }
        }
    }
}

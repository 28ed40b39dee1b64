//! What the instructions do, in plain code: checks the walks over tiles on machines without them.

use super::{BLOCK, Engine, Place, Rows, SIDE, Started};
use crate::kernels::simd::PairUnit;

#[derive(Clone, Copy)]
pub(crate) struct Tiles;

impl Engine for Tiles {
    type Started = Self;

    fn start(self) -> Self {
        self
    }
}

impl Started for Tiles {
    fn product(&self, x: Rows<'_>, panels: [&[PairUnit]; 2], to: &Place<'_>, add: bool) {
        let depth = panels[0].len() / SIDE;
        assert!(panels[1].len() == SIDE * depth && x.hold(depth));
        for r in 0..BLOCK {
            let row = &x.steps[r * x.stride..][..depth];
            // SAFETY: this place's alone, and the piece ends with the turn.
            let sums = unsafe { to.to.piece(to.start + r * to.stride, BLOCK) };
            for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(SIDE)) {
                if !add {
                    sums.fill(0.0);
                }
                let pairs = row.iter().flat_map(|step| step.0.as_chunks::<2>().0);
                for (x, unit) in pairs.zip(panel.iter()) {
                    for (sum, w) in sums.iter_mut().zip(&unit.0) {
                        *sum += x[0].to_f32() * w[0].to_f32();
                        *sum += x[1].to_f32() * w[1].to_f32();
                    }
                }
            }
        }
    }
}

/// [`super::linear`] with tiles in plain code.
#[cfg(test)]
pub(crate) fn linear(
    isa: crate::kernels::cpu::Isa,
    x: &[f32],
    weights: super::Weights<'_>,
    out: &mut [f32],
    [rows, k, n]: [usize; 3],
    how: crate::kernels::matmul::Write,
) {
    let x = super::Halves::new(isa, x, rows, k);
    super::linear::work(Tiles, isa, &x, weights, out, [rows, k, n], how).run();
}

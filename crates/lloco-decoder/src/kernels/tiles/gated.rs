//! `silu(x gateT) * (x upT)`, rounded to bf16 as it comes: neither product is ever written out.

use super::linear::AT_HAND;
use super::{BLOCK, Engine, Halves, Place, SIDE, Started, Step, Weights, hardware};
use crate::kernels::cpu::{Isa, Kernel};
use crate::kernels::cut::Cut;
use crate::kernels::shared::Shared;
use crate::kernels::simd::{LANES, PairUnit, Simd};
use std::cell::Cell;
use std::ops::Range;

thread_local! {
    /// Where blocks of the gate and of the other factor are unpacked.
    static UNPACKED: Cell<[Vec<PairUnit>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// `x`, of `rows` times `k` numbers, through both weights of `n` outputs: `[rows, n]`, on [`Isa::Amx`].
pub(crate) fn gated(isa: Isa, x: &Halves, weights: [Weights<'_>; 2], sizes: [usize; 3]) -> Halves {
    with(hardware(), isa, x, weights, sizes)
}

pub(crate) fn with(
    engine: impl Engine,
    isa: Isa,
    x: &Halves,
    weights: [Weights<'_>; 2],
    [rows, k, n]: [usize; 3],
) -> Halves {
    let mut halves = Halves::blank(rows, n);
    let depth = halves.depth();
    let out = Shared::new(halves.steps_mut());
    let cut = Cut::new([rows, 2 * k, n], rows, [BLOCK, 2]);
    cut.work(|_, panels| isa.run(Task { engine, x, weights, out: &out, rows, panels, n, depth })).run();
    halves
}

/// One thread's share: all outputs of `panels`.
struct Task<'a, E> {
    engine: E,
    x: &'a Halves,
    weights: [Weights<'a>; 2],
    out: &'a Shared<'a, Step>,
    rows: usize,
    panels: Range<usize>,
    n: usize,
    /// Steps of a row of outputs.
    depth: usize,
}

impl<E: Engine> Kernel for Task<'_, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let steps = self.x.depth();
        let together = (AT_HAND / (2 * steps * SIDE * size_of::<PairUnit>())).max(2).next_multiple_of(2);
        let [mut first_memory, mut second_memory] = UNPACKED.take();
        let mut sums = [[[0.0; LANES]; 2 * BLOCK]; 2];
        let tiles = self.engine.start();
        for first in self.panels.clone().step_by(together) {
            let panels = first..self.panels.end.min(first + together);
            let gate = self.weights[0].panels(panels.clone(), steps, &mut first_memory);
            let up = self.weights[1].panels(panels.clone(), steps, &mut second_memory);
            for row in (0..self.rows).step_by(BLOCK) {
                for p in panels.clone().step_by(2) {
                    // A lone last panel is multiplied twice; what comes of it is cut off below.
                    let last = (p + 1).min(panels.end - 1);
                    let of = |units, p: usize| panel(units, p - first, steps);
                    let both = [[of(gate, p), of(gate, last)], [of(up, p), of(up, last)]];
                    for (panels, sums) in both.iter().zip(&mut sums) {
                        let sums = Shared::new(sums.as_flattened_mut());
                        // SAFETY: nobody else has them.
                        let place = unsafe { Place::new(&sums, 0, BLOCK) };
                        tiles.product(self.x.block(row), *panels, &place, false);
                    }
                    self.put(s, row, p, &sums);
                }
            }
        }
        UNPACKED.set([first_memory, second_memory]);
    }
}

impl<E> Task<'_, E> {
    /// The outputs of one block of sums, of the panels from `p` on.
    #[inline(always)]
    fn put<S: Simd>(&self, s: S, row: usize, p: usize, [gates, ups]: &[[[f32; LANES]; 2 * BLOCK]; 2]) {
        let valid = self.n - p * LANES;
        for r in 0..BLOCK.min(self.rows - row) {
            // SAFETY: the tasks have no panel in common, a step holds two whole panels, and the piece ends here.
            let step = unsafe { &mut self.out.piece((row + r) * self.depth + p / 2, 1)[0] };
            let (halves, _) = step.0.as_chunks_mut::<LANES>();
            for (side, to) in halves.iter_mut().enumerate() {
                let silu = s.silu_coarse(s.load(&gates[2 * r + side]));
                s.store_bf16(to, s.mul(silu, s.load(&ups[2 * r + side])));
            }
            if valid < BLOCK {
                step.0[valid..].fill(half::bf16::ZERO);
            }
        }
    }
}

#[inline(always)]
fn panel(units: &[PairUnit], p: usize, steps: usize) -> &[PairUnit] {
    &units[p * steps * SIDE..][..steps * SIDE]
}

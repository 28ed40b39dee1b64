//! `out = x wT` with frozen weights. Blocks of eight and four bits become bf16 on the way, a few panels at a time.

use super::{BLOCK, Engine, Halves, Place, SIDE, Started, hardware};
use crate::kernels::blocks::{Bytes, Nibbles, PAIRS, Stored};
use crate::kernels::cpu::{Isa, Kernel};
use crate::kernels::cut::{Cut, Work};
use crate::kernels::matmul::Write;
use crate::kernels::shared::Shared;
use crate::kernels::simd::{LANES, PairUnit, Simd};
use bytemuck::Zeroable;
use std::cell::Cell;
use std::mem::swap;
use std::ops::Range;

/// Bytes of panels that stay in the second-level cache while all rows meet them.
pub(super) const AT_HAND: usize = 1024 * 1024;

/// Packed weights that tiles multiply.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    Halves(&'a [PairUnit]),
    Bytes(&'a [Bytes]),
    Nibbles(&'a [Nibbles]),
}

/// `x`, of `rows` times `k` numbers, times the transpose of the weight, into `out` `[rows, n]`, on [`Isa::Amx`].
pub(crate) fn linear<'a>(
    isa: Isa,
    x: &'a Halves,
    weights: Weights<'a>,
    out: &'a mut [f32],
    sizes: [usize; 3],
    how: Write,
) -> Work<'a> {
    work(hardware(), isa, x, weights, out, sizes, how)
}

pub(super) fn work<'a>(
    engine: impl Engine + 'a,
    isa: Isa,
    x: &'a Halves,
    weights: Weights<'a>,
    out: &'a mut [f32],
    [rows, k, n]: [usize; 3],
    how: Write,
) -> Work<'a> {
    let out = Shared::new(out);
    // All rows in one task: it unpacks its panels once.
    let cut = Cut::new([rows, k, n], rows, [BLOCK, 2]);
    cut.work(move |_, panels| {
        isa.run(Task { engine, x, weights, out: &out, rows, panels, n, add: how == Write::Add });
    })
}

/// One thread's share: all outputs of `panels`.
struct Task<'a, E> {
    engine: E,
    x: &'a Halves,
    weights: Weights<'a>,
    out: &'a Shared<'a, f32>,
    rows: usize,
    panels: Range<usize>,
    n: usize,
    add: bool,
}

thread_local! {
    /// Where blocks are unpacked.
    static UNPACKED: Cell<Vec<PairUnit>> = const { Cell::new(Vec::new()) };
}

impl<E: Engine> Kernel for Task<'_, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let steps = self.x.depth();
        let together = (AT_HAND / (steps * SIDE * size_of::<PairUnit>())).max(2).next_multiple_of(2);
        let mut memory = UNPACKED.take();
        let tiles = self.engine.start();
        for first in self.panels.clone().step_by(together) {
            let panels = first..self.panels.end.min(first + together);
            let units = self.weights.panels(panels.clone(), steps, &mut memory);
            // While tiles compute the sums of a block, those of the one before are put where they belong.
            let (mut now, mut then) = (&mut [[0.0; LANES]; 2 * BLOCK], &mut [[0.0; LANES]; 2 * BLOCK]);
            let mut before = None;
            // The rows of a block stay in a cache, and what comes of them goes to the same few pages.
            for row in (0..self.rows).step_by(BLOCK) {
                for p in panels.clone().step_by(2) {
                    // A lone last panel is multiplied twice; what comes of it is cut off.
                    let pair = [p, (p + 1).min(panels.end - 1)];
                    let both = pair.map(|p| &units[(p - first) * steps * SIDE..][..steps * SIDE]);
                    {
                        let sums = Shared::new(now.as_flattened_mut());
                        // SAFETY: nobody else has them.
                        let place = unsafe { Place::new(&sums, 0, BLOCK) };
                        tiles.product(self.x.block(row), both, &place, false);
                    }
                    if let Some((row, p)) = before.replace((row, p)) {
                        self.put(s, row, p, then);
                    }
                    swap(&mut now, &mut then);
                }
            }
            if let Some((row, p)) = before {
                self.put(s, row, p, then);
            }
        }
        UNPACKED.set(memory);
    }
}

impl<E> Task<'_, E> {
    /// The sums of a block of rows, of the panels from `p` on.
    #[inline(always)]
    fn put<S: Simd>(&self, s: S, row: usize, p: usize, sums: &[[f32; LANES]; 2 * BLOCK]) {
        let columns = p * LANES..self.n.min((p + 2).min(self.panels.end) * LANES);
        for r in 0..BLOCK.min(self.rows - row) {
            // SAFETY: the tasks of one product have no row and column in common, and the piece ends here.
            let out = unsafe { self.out.piece((row + r) * self.n + columns.start, columns.len()) };
            for (out, sums) in out.chunks_mut(LANES).zip(&sums[2 * r..]) {
                let sums = s.load(sums);
                s.store_part(out, if self.add { s.add(s.load_part(out), sums) } else { sums });
            }
        }
    }
}

impl<'a> Weights<'a> {
    /// Some panels, of `steps` times [`SIDE`] units each.
    pub(super) fn panels<'m>(self, panels: Range<usize>, steps: usize, memory: &'m mut Vec<PairUnit>) -> &'m [PairUnit]
    where
        'a: 'm,
    {
        let places = panels.start * steps..panels.end * steps;
        match self {
            Weights::Halves(units) => &units[places.start * SIDE..places.end * SIDE],
            Weights::Bytes(blocks) => unpack(&blocks[places], memory),
            Weights::Nibbles(blocks) => unpack(&blocks[places], memory),
        }
    }
}

fn unpack<'m, B: Stored>(blocks: &[B], memory: &'m mut Vec<PairUnit>) -> &'m [PairUnit] {
    if memory.len() < blocks.len() * PAIRS {
        memory.resize(blocks.len() * PAIRS, PairUnit::zeroed());
    }
    let units = &mut memory[..blocks.len() * PAIRS];
    Isa::best().run(Unpack { blocks, units });
    units
}

struct Unpack<'a, B> {
    blocks: &'a [B],
    units: &'a mut [PairUnit],
}

impl<B: Stored> Kernel for Unpack<'_, B> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (block, units) in self.blocks.iter().zip(self.units.as_chunks_mut().0) {
            block.unpack(s, units);
        }
    }
}

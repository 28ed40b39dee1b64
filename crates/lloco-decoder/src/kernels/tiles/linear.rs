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
    x: &'a Halves,
    weights: Weights<'a>,
    out: &'a mut [f32],
    sizes: [usize; 3],
    how: Write,
) -> Work<'a> {
    work(hardware(), x, weights, out, sizes, how)
}

pub(super) fn work<'a>(
    engine: impl Engine + 'a,
    x: &'a Halves,
    weights: Weights<'a>,
    out: &'a mut [f32],
    [rows, k, n]: [usize; 3],
    how: Write,
) -> Work<'a> {
    let out = Shared::new(out);
    // All rows in one task: it unpacks its panels once.
    let cut = Cut::new([rows, k, n], rows, [BLOCK, 2]);
    cut.work(move |_, panels| Task { x, weights, out: &out, rows, panels, n, add: how == Write::Add }.run(engine))
}

/// One thread's share: all outputs of `panels`.
struct Task<'a> {
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

impl Task<'_> {
    fn run(&self, engine: impl Engine) {
        let steps = self.x.depth();
        let together = (AT_HAND / (steps * SIDE * size_of::<PairUnit>())).max(2).next_multiple_of(2);
        let mut memory = UNPACKED.take();
        let tiles = engine.start();
        for first in self.panels.clone().step_by(together) {
            let panels = first..self.panels.end.min(first + together);
            let units = self.weights.panels(panels.clone(), steps, &mut memory);
            // The rows of a block stay in the first-level cache, and what comes of them goes to the same few pages.
            for row in (0..self.rows).step_by(BLOCK) {
                for p in panels.clone().step_by(2) {
                    // A lone last panel is multiplied twice.
                    let pair = [p, (p + 1).min(panels.end - 1)];
                    let both = pair.map(|p| &units[(p - first) * steps * SIDE..][..steps * SIDE]);
                    self.block(&tiles, row, pair, both);
                }
            }
        }
        UNPACKED.set(memory);
    }

    /// A block of sums.
    #[inline(always)]
    fn block(&self, tiles: &impl Started, row: usize, [p, last]: [usize; 2], panels: [&[PairUnit]; 2]) {
        let x = self.x.block(row);
        let columns = p * LANES..self.n.min((last + 1) * LANES);
        let rows = row..self.rows.min(row + BLOCK);
        if columns.len() == BLOCK && rows.len() == BLOCK {
            // SAFETY: the tasks of one product have no row and column in common, and the place ends here.
            let place = unsafe { Place::new(self.out, row * self.n + p * LANES, self.n) };
            return tiles.product(x, panels, &place, self.add);
        }
        let mut sums = [0.0; BLOCK * BLOCK];
        {
            let sums = Shared::new(&mut sums);
            // SAFETY: nobody else has them.
            tiles.product(x, panels, &unsafe { Place::new(&sums, 0, BLOCK) }, false);
        }
        for (row, sums) in rows.zip(sums.chunks_exact(BLOCK)) {
            // SAFETY: as above.
            let out = unsafe { self.out.piece(row * self.n + columns.start, columns.len()) };
            match self.add {
                true => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                false => out.copy_from_slice(&sums[..columns.len()]),
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

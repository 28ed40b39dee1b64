//! Products of bf16 with bf16, summed in f32, by tile registers (AMX).
//!
//! The left factor is rounded to bf16 before ([`Halves`]); that is this path's tolerance, 2^-9 of each number. The right
//! one comes in panels of [`PairUnit`]s, as [`super::pack`] lays weights out.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(crate) mod emulated;
mod gated;
mod linear;

pub(crate) use gated::gated;
#[cfg(test)]
pub(crate) use gated::with as gated_with;
pub(crate) use linear::{Weights, linear};

use super::cpu::{Isa, Kernel};
use super::reuse::Items;
use super::rows::each_piece;
use super::shared::Shared;
use super::simd::{LANES, PairUnit, Simd};
use bytemuck::Zeroable;
use half::bf16;

/// Rows and columns of a tile of sums.
pub(crate) const SIDE: usize = 16;

/// Rows and columns of what one [`Started::product`] computes: two by two tiles.
pub(crate) const BLOCK: usize = 2 * SIDE;

/// Inputs of one tile product.
pub(crate) const DEPTH: usize = 32;

/// A row's share in one tile.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Step(pub(crate) [bf16; DEPTH]);

/// [`BLOCK`] rows of a left factor, `stride` steps apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) steps: &'a [Step],
    pub(crate) stride: usize,
}

impl Rows<'_> {
    fn hold(&self, depth: usize) -> bool {
        depth <= self.stride && self.steps.len() >= (BLOCK - 1) * self.stride + depth
    }
}

/// Where [`BLOCK`] rows of as many sums go, `stride` numbers apart.
pub(crate) struct Place<'a> {
    to: &'a Shared<'a, f32>,
    start: usize,
    stride: usize,
}

impl<'a> Place<'a> {
    /// # Safety
    /// Until the last use of the place, no other access to these rows and columns of `to`.
    #[inline(always)]
    pub(crate) unsafe fn new(to: &'a Shared<'a, f32>, start: usize, stride: usize) -> Self {
        assert!(stride >= BLOCK && to.holds(start, (BLOCK - 1) * stride + BLOCK), "block at {start}, {stride} apart");
        Self { to, start, stride }
    }
}

/// What multiplies tiles.
pub(crate) trait Engine: Copy + Send + Sync {
    /// A thread's tile registers, set up until this is dropped.
    type Started: Started;
    fn start(self) -> Self::Started;
}

/// Tile registers that are set up.
pub(crate) trait Started {
    /// The products of the rows of `x` with two panels of as many inputs, instead of what is at `to` or added to it.
    fn product(&self, x: Rows<'_>, panels: [&[PairUnit]; 2], to: &Place<'_>, add: bool);
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn hardware() -> impl Engine {
    amx::Tiles::new()
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn hardware() -> impl Engine {
    emulated::Tiles
}

/// Rows of x in bf16, padded with zeros to whole blocks.
pub(crate) struct Halves {
    all: Items<Step>,
    /// Of a row.
    steps: usize,
}

impl Halves {
    /// `x` `[rows, k]`.
    pub(crate) fn new(isa: Isa, x: &[f32], rows: usize, k: usize) -> Self {
        Self::fill(rows, k, |first, to| isa.run(Convert { x: &x[first * k..], k, to }))
    }

    /// `rows` rows of `k` numbers, runs of them written by `write(first row, steps)`, in parallel if they are many.
    pub(crate) fn fill(rows: usize, k: usize, write: impl Fn(usize, &mut [Step]) + Sync) -> Self {
        let mut halves = Self::blank(rows, k);
        if rows * k == 0 {
            return halves;
        }
        let run = 32 * 1024 / k + 1;
        let steps = run * halves.steps;
        let whole = &mut halves.all[..rows * k.div_ceil(DEPTH)];
        if rows <= run {
            write(0, whole);
        } else {
            each_piece(whole, steps, |i, steps| write(i * run, steps));
        }
        halves
    }

    /// `rows` times `k` numbers of no certain value, with zeros below them.
    pub(crate) fn blank(rows: usize, k: usize) -> Self {
        let steps = k.div_ceil(DEPTH);
        let mut all = Items::<Step>::new(rows.next_multiple_of(BLOCK) * steps);
        all[rows * steps..].fill(Step::zeroed());
        Self { all, steps }
    }

    /// All rows.
    pub(crate) fn steps_mut(&mut self) -> &mut [Step] {
        &mut self.all
    }

    /// One row.
    pub(crate) fn row(&self, row: usize) -> &[Step] {
        &self.all[row * self.steps..][..self.steps]
    }

    /// Steps of a row.
    pub(crate) fn depth(&self) -> usize {
        self.steps
    }

    /// The block of rows that begins at `row`.
    pub(crate) fn block(&self, row: usize) -> Rows<'_> {
        Rows { steps: &self.all[row * self.steps..][..BLOCK * self.steps], stride: self.steps }
    }
}

struct Convert<'a> {
    x: &'a [f32],
    k: usize,
    /// Of whole rows.
    to: &'a mut [Step],
}

impl Kernel for Convert<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (to, x) in self.to.chunks_exact_mut(self.k.div_ceil(DEPTH)).zip(self.x.chunks_exact(self.k)) {
            for (to, x) in to.iter_mut().zip(x.chunks(DEPTH)) {
                round_step(s, x, to);
            }
        }
    }
}

/// Up to [`DEPTH`] numbers in bf16, the missing ones 0.
#[inline(always)]
pub(crate) fn round_step<S: Simd>(s: S, x: &[f32], to: &mut Step) {
    let (low, high) = x.split_at(x.len().min(LANES));
    let (halves, _) = to.0.as_chunks_mut::<LANES>();
    s.store_bf16(&mut halves[0], s.load_part(low));
    s.store_bf16(&mut halves[1], s.load_part(high));
}

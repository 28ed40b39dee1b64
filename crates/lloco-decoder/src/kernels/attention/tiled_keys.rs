//! Keys and values as what tiles multiply.

use super::super::cpu::{Isa, Kernel};
use super::super::crew;
use super::super::shared::Shared;
use super::super::simd::{LANES, PairUnit, Simd};
use super::super::tiles::{BLOCK, DEPTH};
use super::panels::{columns, pairs};
use super::{Inputs, Sizes, Stored};
use bytemuck::Zeroable;
use half::bf16;
use std::cell::Cell;
use std::mem::take;
use std::ops::Range;

/// Units by which the memory grows, so that a text that becomes longer seldom needs other memory: 128 KiB.
const ROOM: usize = 2048;

/// Units that a thread keeps for its next call, of keys as of values: 1 MiB.
const MOST: usize = 1 << 14;

thread_local! {
    /// Memory of the last call, of keys and of values.
    static MEMORY: Cell<[Vec<PairUnit>; 2]> = Cell::default();
}

/// Keys and values of some heads as panels, rounded, padded to whole blocks of keys and of dimensions.
pub(super) struct Packed {
    /// Of each head, as [`columns`] has them; behind the last key there may be anything, as no row sees it.
    keys: Vec<PairUnit>,
    /// Of each head, as [`pairs`] has them, in the order of [`key_at`]; behind the last one there are zeros.
    values: Vec<PairUnit>,
    /// The first head, counted through all sequences.
    first: usize,
    /// Keys of a head.
    pub(super) len: usize,
    /// Dimensions of a head.
    pub(super) dim: usize,
}

impl Packed {
    pub(super) fn new<T: Stored>(isa: Isa, inputs: &Inputs<'_, T>, heads: Range<usize>) -> Self {
        let sizes = inputs.sizes;
        let [len, dim] = padded(sizes);
        let each = len * dim / (2 * LANES);
        let [mut keys, mut values] = MEMORY.take().map(|memory| with_room(memory, heads.len() * each));
        {
            let both = [Shared::new(&mut keys), Shared::new(&mut values)];
            crew::each(2 * heads.len(), |t| {
                let (place, what) = (t / 2, t % 2);
                // SAFETY: no other task has the keys, or the values, of this head, and the piece ends with the task.
                let units = unsafe { both[what].piece(place * each, each) };
                let head = heads.start + place;
                let (batch, head) = (head / sizes.kv_heads, head % sizes.kv_heads);
                isa.run(Pack { inputs: *inputs, batch, head, dim, values: what == 1, units });
            });
        }
        Self { keys, values, first: heads.start, len, dim }
    }

    /// Bytes that keys and values of a head take.
    pub(super) fn bytes_of_head(sizes: Sizes) -> usize {
        let [len, dim] = padded(sizes);
        2 * len * dim / (2 * LANES) * size_of::<PairUnit>()
    }

    /// The panels of one head.
    pub(super) fn head(&self, head: usize) -> [&[PairUnit]; 2] {
        let each = self.len * self.dim / (2 * LANES);
        [&self.keys, &self.values].map(|all| &all[(head - self.first) * each..][..each])
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        if self.keys.len() <= MOST {
            MEMORY.set([take(&mut self.keys), take(&mut self.values)]);
        }
    }
}

/// The same memory if it has room for so many units, else other memory; it holds anything.
fn with_room(mut memory: Vec<PairUnit>, units: usize) -> Vec<PairUnit> {
    if memory.len() < units {
        drop(memory);
        memory = vec![PairUnit::zeroed(); units.next_multiple_of(ROOM)];
    }
    // A kernel that reads what it has not written shows in every test.
    if cfg!(debug_assertions) {
        memory.fill(PairUnit([[bf16::NAN; 2]; LANES]));
    }
    memory
}

/// Gives back what this thread keeps.
pub(crate) fn give_back() {
    drop(MEMORY.take());
}

/// Keys of a head, and dimensions.
fn padded(sizes: Sizes) -> [usize; 2] {
    [sizes.keys.next_multiple_of(BLOCK), sizes.dim.next_multiple_of(DEPTH)]
}

/// The keys of one head, or its values.
struct Pack<'a, T> {
    inputs: Inputs<'a, T>,
    batch: usize,
    head: usize,
    dim: usize,
    values: bool,
    units: &'a mut [PairUnit],
}

impl<T: Stored> Kernel for Pack<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Inputs { sizes, k, v, .. } = self.inputs;
        if !self.values {
            return columns(s, self.units, sizes.keys, self.dim, |key| k.row(self.batch, self.head, key));
        }
        let values = |place: usize| match key_at(place) {
            key if key < sizes.keys => v.row(self.batch, self.head, key),
            _ => &[],
        };
        pairs(s, self.units, sizes.keys.next_multiple_of(BLOCK), self.dim, values);
    }
}

/// The key whose value is at this place among the values: of each block of keys, the first half and the second in turns, as
/// [`LazySoftmax::block`](super::lazy_softmax::LazySoftmax::block) leaves the weights.
fn key_at(place: usize) -> usize {
    place / BLOCK * BLOCK + place % 2 * LANES + place % BLOCK / 2
}

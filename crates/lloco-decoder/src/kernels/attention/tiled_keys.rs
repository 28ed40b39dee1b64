//! Keys and values as what tiles multiply.

use super::super::cpu::{Isa, Kernel};
use super::super::crew;
use super::super::reuse::Items;
use super::super::shared::Shared;
use super::super::simd::{LANES, PairUnit, Simd};
use super::super::tiles::{BLOCK, DEPTH};
use super::panels::{columns, pairs};
use super::{Inputs, Stored};

/// Keys and values of all heads as panels, rounded, padded to whole blocks of keys and of dimensions.
pub(super) struct Packed {
    /// Of each head, as [`columns`] has them; behind the last key there may be anything, as no row sees it.
    keys: Items<PairUnit>,
    /// Of each head, as [`pairs`] has them, in the order of [`key_at`]; behind the last one there are zeros.
    values: Items<PairUnit>,
    /// Keys of a head.
    pub(super) len: usize,
    /// Dimensions of a head.
    pub(super) dim: usize,
}

impl Packed {
    pub(super) fn new<T: Stored>(isa: Isa, inputs: &Inputs<'_, T>) -> Self {
        let sizes = inputs.sizes;
        let (len, dim) = (sizes.keys.next_multiple_of(BLOCK), sizes.dim.next_multiple_of(DEPTH));
        let (heads, each) = (sizes.batch * sizes.kv_heads, len * dim / (2 * LANES));
        let [mut keys, mut values] = [0; 2].map(|_| Items::new(heads * each));
        {
            let both = [Shared::new(&mut keys), Shared::new(&mut values)];
            crew::each(2 * heads, |t| {
                let (head, what) = (t / 2, t % 2);
                // SAFETY: no other task has the keys, or the values, of this head, and the piece ends with the task.
                let units = unsafe { both[what].piece(head * each, each) };
                let (batch, head) = (head / sizes.kv_heads, head % sizes.kv_heads);
                isa.run(Pack { inputs: *inputs, batch, head, dim, values: what == 1, units });
            });
        }
        Self { keys, values, len, dim }
    }

    /// The panels of one head.
    pub(super) fn head(&self, head: usize) -> [&[PairUnit]; 2] {
        let each = self.len * self.dim / (2 * LANES);
        [&self.keys, &self.values].map(|all| &all[head * each..][..each])
    }
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

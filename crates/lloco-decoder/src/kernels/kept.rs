//! Memory between two outputs: how much of it is kept, and for how long.

use super::pages::Pages;
use std::collections::VecDeque;
use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers below which the allocator is left to itself.
pub(super) const LEAST: usize = 1 << 15;

/// Numbers from which memory is in large pages: those that fill one.
const LARGE: usize = 1 << 19;

/// The share of a block that is beyond what it was made for.
const SPARE: usize = 16;

/// Numbers of the largest block that is kept, and of all that may be kept and in use where fewer were in use at once
/// lately: 128 MiB.
const MOST: usize = 1 << 25;

/// Outputs of a few layers: what none of them could use is given back if more is kept than was in use at once lately.
const LAYERS: usize = 64;

/// Outputs after which what none of them could use is given back at any rate: more than a step of training has.
const PATIENCE: usize = 1 << 14;

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

/// A block of numbers.
#[derive(Debug)]
pub(super) enum Memory {
    Heap(Vec<f32>),
    Pages(Pages<f32>),
}

impl Memory {
    pub(super) fn new(len: usize) -> Self {
        match Self::room(len) {
            room if len < LARGE => Self::Heap(vec![0.0; room]),
            room => Self::Pages(Pages::alone(room, len)),
        }
    }

    /// Numbers of a new block for `len`. Those beyond take no memory before they are written: the next output may be a little
    /// larger, as those of a document's second segment are, which is read behind a summary.
    fn room(len: usize) -> usize {
        if len < LEAST { len } else { len + len / SPARE }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Memory {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Heap(numbers) => numbers,
            Self::Pages(numbers) => numbers,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Heap(numbers) => numbers,
            Self::Pages(numbers) => numbers,
        }
    }
}

/// Memory between two outputs.
///
/// With what is in use it is soon no more than was in use at once: a step of training finds all of the last one's. Only outputs make it less, so who ends a training gives it back ([`give_back`]).
pub(super) struct Kept {
    /// The longest unused first, each with the number of outputs before it came.
    blocks: VecDeque<(usize, Memory)>,
    /// Numbers of those.
    kept: usize,
    outputs: usize,
    /// Numbers of the outputs that are alive.
    in_use: usize,
    /// The most of them at once, among the last [`PATIENCE`] outputs and those before.
    needed: [usize; 2],
}

impl Kept {
    const fn new() -> Self {
        Self { blocks: VecDeque::new(), kept: 0, outputs: 0, in_use: 0, needed: [0; 2] }
    }

    /// The youngest block that takes `len` numbers without wasting much, and blocks to be dropped.
    pub(super) fn take(&mut self, len: usize) -> (Option<Memory>, Vec<Memory>) {
        self.outputs += 1;
        let fits = |(_, block): &(_, Memory)| (len..=len + len / 4).contains(&block.len());
        let place = self.blocks.iter().rposition(fits);
        let block = place.and_then(|place| self.blocks.remove(place)).map(|(_, block)| block);
        self.kept -= block.as_ref().map_or(0, |block| block.len());
        self.in_use += block.as_ref().map_or(Memory::room(len), |block| block.len());
        if self.outputs.is_multiple_of(PATIENCE) {
            self.needed = [self.needed[1], 0];
        }
        self.needed[1] = self.needed[1].max(self.in_use);
        (block, self.too_many())
    }

    /// Keeps a block; returns blocks to be dropped.
    pub(super) fn put(&mut self, block: Memory) -> Vec<Memory> {
        self.in_use -= block.len();
        if block.len() > MOST {
            return vec![block];
        }
        self.kept += block.len();
        self.blocks.push_back((self.outputs, block));
        self.too_many()
    }

    fn too_many(&mut self) -> Vec<Memory> {
        let needed = self.needed[0].max(self.needed[1]);
        let mut dropped = Vec::new();
        while let Some((since, _)) = self.blocks.front() {
            let (all, age) = (self.kept + self.in_use, self.outputs - since);
            let patience = if all > needed { LAYERS } else { PATIENCE };
            if all <= needed.max(MOST) && age <= patience {
                break;
            }
            dropped.extend(self.blocks.pop_front().map(|(_, block)| block));
            self.kept -= dropped.last().map_or(0, |block| block.len());
        }
        dropped
    }

    /// All blocks; what was needed is forgotten.
    fn clear(&mut self) -> VecDeque<(usize, Memory)> {
        (self.kept, self.needed) = (0, [0, self.in_use]);
        take(&mut self.blocks)
    }
}

/// Gives all of it back to the system.
pub(crate) fn give_back() {
    let blocks = keeper().clear();
    // The system takes it when the lock is free again.
    drop(blocks);
}

pub(super) fn keeper() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut kept = Kept::new();
        let output = |kept: &mut Kept, len| kept.take(len).0.unwrap_or_else(|| Memory::new(len));
        for tenths in 5..10 {
            let block = output(&mut kept, MOST / 10 * tenths);
            kept.put(block);
            assert!(kept.kept <= MOST, "{}", kept.kept);
        }
        // What was in use at once is there for the next step.
        let step: Vec<Memory> = (0..5).map(|_| output(&mut kept, MOST / 4)).collect();
        let places: HashSet<*const f32> = step.iter().map(|block| block.as_ptr()).collect();
        step.into_iter().for_each(|block| drop(kept.put(block)));
        assert_eq!((kept.kept, kept.in_use), (5 * Memory::room(MOST / 4), 0));
        let again: Vec<Memory> = (0..5).map(|_| output(&mut kept, MOST / 4)).collect();
        assert_eq!(again.iter().map(|block| block.as_ptr()).collect::<HashSet<_>>(), places);
        // What fits nothing takes the place of what is kept.
        again.into_iter().for_each(|block| drop(kept.put(block)));
        let large = output(&mut kept, MOST);
        assert!(kept.kept + large.len() <= 5 * Memory::room(MOST / 4), "{}", kept.kept);
        kept.put(large);
        // Nor is anything kept that nobody has used for long.
        let first = output(&mut kept, LEAST);
        kept.put(first);
        for _ in 0..2 * PATIENCE + 2 {
            let block = output(&mut kept, 2 * LEAST);
            kept.put(block);
        }
        assert_eq!(kept.kept, Memory::room(2 * LEAST));
        assert_eq!(kept.clear().len(), 1);
        assert_eq!(kept.kept, 0);
    }
}

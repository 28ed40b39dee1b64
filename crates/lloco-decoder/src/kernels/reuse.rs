//! The memory of large outputs, used again.
//!
//! Allocators give large blocks back to the system, and the system clears every page that it hands out anew: with an
//! output of megabytes for each product of a prefill, a fifth of the time. Here they are kept for the next output of
//! about the same size.

use super::pages::Pages;
use burn::tensor::{Bytes, DType, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use bytemuck::Pod;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, take};
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers below which the allocator is left to itself.
const LEAST: usize = 1 << 15;

/// Numbers from which memory is in large pages: those that fill one.
const LARGE: usize = 1 << 19;

/// Numbers of the largest block that is kept, and of all that may be kept and in use where fewer were in use at once
/// lately: 128 MiB.
const MOST: usize = 1 << 25;

/// Outputs of a few layers: what none of them could use is given back if more is kept than was in use at once lately.
const LAYERS: usize = 64;

/// Outputs after which what none of them could use is given back at any rate: more than a step of training has.
const PATIENCE: usize = 1 << 14;

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

/// Numbers whose memory is kept when it is dropped, if they are many.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// All of a block that was kept, so that none of it is ever cleared again; the first `len` are the buffer's.
    block: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<f32>),
    Pages(Pages<f32>),
}

impl Memory {
    fn new(len: usize) -> Self {
        if len < LARGE { Self::Heap(vec![0.0; len]) } else { Self::Pages(Pages::alone(len)) }
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

impl Buffer {
    /// `len` numbers of no certain value: to be written before they are read.
    pub(crate) fn new(len: usize) -> Self {
        let (kept, dropped) = if len < LEAST { (None, Vec::new()) } else { keeper().take(len) };
        drop(dropped);
        let mut block = kept.unwrap_or_else(|| Memory::new(len));
        // A kernel that reads what it has not written shows in every test.
        if cfg!(debug_assertions) {
            block.fill(f32::NAN);
        }
        Self { block, len }
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }

    /// A tensor's data, without a copy.
    pub(crate) fn into_data(mut self, shape: Vec<usize>) -> TensorData {
        if self.len < LEAST
            && let Memory::Heap(numbers) = &mut self.block
        {
            return TensorData::new(take(numbers), shape);
        }
        let len = size_of_val(&*self);
        // SAFETY: the buffer's memory is initialised, all `len` bytes of it.
        let bytes = unsafe { Bytes::from_controller(Box::new(self), len) };
        TensorData::from_bytes(bytes, shape, DType::F32)
    }
}

/// As a [`Buffer`], of other items, each within as few cache lines as it can be.
pub(crate) struct Items<T> {
    memory: Buffer,
    /// Numbers before the first item.
    start: usize,
    items: PhantomData<T>,
}

impl<T: Pod> Items<T> {
    const NUMBERS: usize = size_of::<T>() / size_of::<f32>();

    /// `len` items of no certain value.
    pub(crate) fn new(len: usize) -> Self {
        const { assert!(Self::NUMBERS * size_of::<f32>() == size_of::<T>() && align_of::<T>() <= size_of::<T>()) };
        let memory = Buffer::new((len + 1) * Self::NUMBERS);
        let start = memory.as_ptr().align_offset(align_of::<T>()).min(Self::NUMBERS);
        Self { memory, start, items: PhantomData }
    }

    fn numbers(&self) -> Range<usize> {
        self.start..self.start + self.memory.len() - Self::NUMBERS
    }
}

impl<T: Pod> Deref for Items<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.memory[self.numbers()])
    }
}

impl<T: Pod> DerefMut for Items<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let numbers = self.numbers();
        bytemuck::cast_slice_mut(&mut self.memory[numbers])
    }
}

/// Memory between two outputs.
///
/// With what is in use it is soon no more than was in use at once: a step of training finds all of the last one's. Only outputs make it less, so who ends a training gives it back ([`give_back`]).
struct Kept {
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
    fn take(&mut self, len: usize) -> (Option<Memory>, Vec<Memory>) {
        self.outputs += 1;
        let fits = |(_, block): &(_, Memory)| (len..=len + len / 4).contains(&block.len());
        let place = self.blocks.iter().rposition(fits);
        let block = place.and_then(|place| self.blocks.remove(place)).map(|(_, block)| block);
        self.kept -= block.as_ref().map_or(0, |block| block.len());
        self.in_use += block.as_ref().map_or(len, |block| block.len());
        if self.outputs.is_multiple_of(PATIENCE) {
            self.needed = [self.needed[1], 0];
        }
        self.needed[1] = self.needed[1].max(self.in_use);
        (block, self.too_many())
    }

    /// Keeps a block; returns blocks to be dropped.
    fn put(&mut self, block: Memory) -> Vec<Memory> {
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

/// Gives memory that is kept for the next outputs back to the system: after a training, or before a long rest.
pub(crate) fn give_back() {
    let blocks = keeper().clear();
    // The system takes it when the lock is free again.
    drop(blocks);
}

fn keeper() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.block.len() >= LEAST {
            let dropped = keeper().put(take(&mut self.block));
            drop(dropped);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.block[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.block[..self.len]
    }
}

impl AllocationController for Buffer {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self);
        // SAFETY: of the same layout, and by this function's contract only initialised bytes are written.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(self);
        // SAFETY: of the same layout, and initialised bytes may be read as bytes that may be.
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};
    use std::collections::HashSet;

    #[test]
    fn a_tensor_of_kept_memory_is_like_any_other() {
        for len in [4, LEAST, LEAST + 5] {
            let mut buffer = Buffer::new(len);
            buffer.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            let x = Tensor::<1>::from_data(buffer.into_data(vec![len]), &Device::default());
            let doubled = x.clone() + x.clone();
            assert_eq!(x.clone().into_data(), TensorData::new((0..len).map(|i| i as f32).collect::<Vec<_>>(), [len]));
            assert_eq!(doubled.into_data().as_slice::<f32>().expect("numbers")[len - 1], 2.0 * (len - 1) as f32);
        }
    }

    #[test]
    fn memory_is_used_again_and_not_shared() {
        let len = 40 * LEAST + 7;
        let address = |buffer: &Buffer| buffer.as_ptr() as usize;
        let (a, b) = (Buffer::new(len), Buffer::new(len));
        assert_ne!(address(&a), address(&b));
        let first = [address(&a), address(&b)];
        drop((a, b));
        let again = Buffer::new(len - 100);
        assert!(first.contains(&address(&again)) && again.len() == len - 100);
        let larger = Buffer::new(2 * len);
        assert!(larger.len() == 2 * len && !first.contains(&address(&larger)));
    }

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
        assert_eq!((kept.kept, kept.in_use), (5 * (MOST / 4), 0));
        let again: Vec<Memory> = (0..5).map(|_| output(&mut kept, MOST / 4)).collect();
        assert_eq!(again.iter().map(|block| block.as_ptr()).collect::<HashSet<_>>(), places);
        // What fits nothing takes the place of what is kept.
        again.into_iter().for_each(|block| drop(kept.put(block)));
        let large = output(&mut kept, MOST);
        assert!(kept.kept + large.len() <= 5 * (MOST / 4), "{}", kept.kept);
        kept.put(large);
        // Nor is anything kept that nobody has used for long.
        let first = output(&mut kept, LEAST);
        kept.put(first);
        for _ in 0..2 * PATIENCE + 2 {
            let block = output(&mut kept, 2 * LEAST);
            kept.put(block);
        }
        assert_eq!(kept.kept, 2 * LEAST);
        assert_eq!(kept.clear().len(), 1);
        assert_eq!(kept.kept, 0);
    }
}

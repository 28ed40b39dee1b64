//! The memory of large outputs, used again.
//!
//! Allocators give large blocks back to the system, and the system clears every page that it hands out anew: with an
//! output of megabytes for each product of a prefill, a fifth of the time. Here they are kept for the next output of
//! about the same size.

use super::kept::{LEAST, Memory, keeper};
use burn::tensor::{Bytes, DType, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use bytemuck::Pod;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, take};
use std::ops::{Deref, DerefMut, Range};

/// Numbers whose memory is kept when it is dropped, if they are many.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// All of a block that was kept, so that none of it is ever cleared again; the first `len` are the buffer's.
    block: Memory,
    len: usize,
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
        // A little more than the first asked for.
        drop(again);
        let more = Buffer::new(len + len / 20);
        assert!(first.contains(&address(&more)) && more.len() == len + len / 20);
        let larger = Buffer::new(2 * len);
        assert!(larger.len() == 2 * len && !first.contains(&address(&larger)));
    }
}

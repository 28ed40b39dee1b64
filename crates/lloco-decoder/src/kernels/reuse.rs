//! The memory of large outputs, used again.
//!
//! Allocators give large blocks back to the system, and the system clears every page that it hands out anew: with an
//! output of megabytes for each product of a prefill, a fifth of the time. Here they are kept for the next output of
//! about the same size.

use burn::tensor::{Bytes, DType, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use std::mem::{MaybeUninit, take};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Numbers below which the allocator is left to itself.
const LEAST: usize = 1 << 15;

/// Numbers that are kept at most: 128 MiB.
const MOST: usize = 1 << 25;

/// What is kept, the longest unused first.
static KEPT: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Numbers whose memory is kept when it is dropped, if they are many.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` numbers of no certain value: to be written before they are read.
    pub(crate) fn new(len: usize) -> Self {
        let mut numbers = if len < LEAST { Vec::new() } else { kept(len).unwrap_or_default() };
        numbers.resize(len, 0.0);
        if cfg!(debug_assertions) {
            numbers.fill(f32::NAN);
        }
        Self(numbers)
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }

    /// A tensor's data, without a copy.
    pub(crate) fn into_data(mut self, shape: Vec<usize>) -> TensorData {
        if self.0.capacity() < LEAST {
            return TensorData::new(take(&mut self.0), shape);
        }
        let len = size_of_val(self.0.as_slice());
        // SAFETY: the buffer's memory is initialised, all `len` bytes of it.
        let bytes = unsafe { Bytes::from_controller(Box::new(self), len) };
        TensorData::from_bytes(bytes, shape, DType::F32)
    }
}

/// The youngest of what is kept that takes `len` numbers without wasting much.
fn kept(len: usize) -> Option<Vec<f32>> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let place = kept.iter().rposition(|numbers| (len..=len + len / 4).contains(&numbers.capacity()))?;
    Some(kept.remove(place))
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = take(&mut self.0);
        if !(LEAST..=MOST).contains(&numbers.capacity()) {
            return;
        }
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(numbers);
        let mut total: usize = kept.iter().map(Vec::capacity).sum();
        while total > MOST {
            total -= kept.remove(0).capacity();
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
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
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        // SAFETY: of the same layout, and by this function's contract only initialised bytes are written.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
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
        let len = 3 * LEAST + 7;
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
        drop((0..5).map(|_| Buffer::new(MOST / 4)).collect::<Vec<_>>());
        let total: usize = KEPT.lock().expect("kept").iter().map(Vec::capacity).sum();
        assert!(total <= MOST, "{total}");
    }
}

//! Memory in large pages.
//!
//! A decoded token reads each weight once, and a block of a product's rows is written to as many pages as it has rows. In pages
//! of 4 KiB, finding out where a page lies takes a good part of that time, in a virtual machine above all. So weights, caches and
//! large outputs are cut from slabs that Linux is asked to make of pages of 2 MiB; elsewhere they are memory like any other.

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use bytemuck::Zeroable;
use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes of a slab. Its pages take no memory before they are written.
const SLAB: usize = 64 << 20;

/// Bytes of a large page.
const PAGE: usize = 2 << 20;

/// Bytes that let a slab begin where a large page does: on Linux they are address space and not memory.
const SLACK: usize = if cfg!(target_os = "linux") { PAGE } else { 0 };

/// Of all items.
const ALIGN: usize = 64;

/// The slab that is being cut, as long as one of its pieces is in use, and its bytes handed out.
static CURRENT: Mutex<(Weak<Slab>, usize)> = Mutex::new((Weak::new(), 0));

/// Items that lie together, zero at first. Owned as by a `Box<[T]>`.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    items: NonNull<T>,
    len: usize,
    /// What they lie in.
    _slab: Arc<Slab>,
}

// SAFETY: the items are this value's alone, see `zeroed`.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Pages<T> {}

#[derive(Debug)]
struct Slab {
    start: NonNull<u8>,
    len: usize,
    _map: MmapMut,
}

// SAFETY: a slab is handed out in disjoint pieces and never looked at itself.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// `len` bytes, `large` of them in large pages.
    fn new(len: usize, large: usize) -> Option<Arc<Self>> {
        let mut map = MmapMut::map_anon(len.checked_add(SLACK)?).ok()?;
        let before = map.as_ptr().align_offset(PAGE);
        let before = if before <= SLACK { before } else { 0 };
        // A wish: a system without large pages goes on with small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, before, large);
        #[cfg(not(target_os = "linux"))]
        let _ = large;
        let start = NonNull::new(map[before..].as_mut_ptr())?;
        Some(Arc::new(Self { start, len, _map: map }))
    }

    /// `bytes` of zeros, a multiple of [`ALIGN`], in the current slab, the next one, or, if they are many, one of their own.
    fn cut(bytes: usize) -> Option<(Arc<Self>, NonNull<u8>)> {
        if bytes > SLAB / 2 {
            let slab = Self::new(bytes, bytes)?;
            let start = slab.start;
            return Some((slab, start));
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let slab = match current.0.upgrade() {
            Some(slab) if slab.len - current.1 >= bytes => slab,
            _ => {
                let slab = Self::new(SLAB, SLAB)?;
                *current = (Arc::downgrade(&slab), 0);
                slab
            }
        };
        // SAFETY: `bytes` more lie within the slab.
        let start = unsafe { slab.start.add(current.1) };
        current.1 += bytes;
        Some((slab, start))
    }
}

impl<T: Zeroable + Copy> Pages<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let Some((slab, start)) = Slab::cut(bytes::<T>(len)) else { failed::<T>(len) };
        // The system's pages are zero, and no byte of a slab is cut twice: nothing else refers to these.
        Self { items: start.cast(), len, _slab: slab }
    }

    /// `len` zeros in a slab of their own. Large pages are wished for those of the first `used` that fill one, and not for
    /// the rest of them.
    pub(crate) fn alone(len: usize, used: usize) -> Self {
        let size = bytes::<T>(len);
        let Some(slab) = Slab::new(size, bytes::<T>(used).min(size) / PAGE * PAGE) else { failed::<T>(len) };
        // As in `zeroed`.
        Self { items: slab.start.cast(), len, _slab: slab }
    }

    /// So many times `len` zeros, in a slab of their own: it goes when they go.
    pub(crate) fn apart(count: usize, len: usize) -> Vec<Self> {
        let size = bytes::<T>(len);
        let Some(slab) = size.checked_mul(count.max(1)).and_then(|size| Slab::new(size, size)) else {
            failed::<T>(len)
        };
        // SAFETY: all of them lie within the slab.
        let place = |i: usize| unsafe { slab.start.add(i * size) };
        // As in `zeroed`.
        (0..count).map(|i| Self { items: place(i).cast(), len, _slab: Arc::clone(&slab) }).collect()
    }
}

/// Bytes that so many items take in a slab.
fn bytes<T>(len: usize) -> usize {
    const { assert!(align_of::<T>() <= ALIGN) };
    let layout = Layout::array::<T>(len.max(1)).and_then(|layout| layout.align_to(ALIGN));
    layout.map_or_else(|_| failed::<T>(len), |layout| layout.pad_to_align().size())
}

/// As when any other memory is not to be had.
fn failed<T>(len: usize) -> ! {
    handle_alloc_error(Layout::array::<T>(len).unwrap_or(Layout::new::<T>()))
}

/// So many tensors of zeros that come and go together.
pub(crate) fn zeros<const D: usize>(count: usize, shape: [usize; D], dtype: DType, device: &Device) -> Vec<Tensor<D>> {
    let pieces = Pages::<u8>::apart(count, shape.iter().product::<usize>() * dtype.size());
    let tensor = |piece: Pages<u8>| Tensor::from_data(piece.into_data(shape.to_vec(), dtype), (device, dtype));
    pieces.into_iter().map(tensor).collect()
}

/// A tensor of zeros in pages of its own, small ones where a large one would not be filled.
pub(crate) fn zeros_alone<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let len = shape.iter().product::<usize>() * dtype.size();
    Tensor::from_data(Pages::<u8>::alone(len, len).into_data(shape.to_vec(), dtype), (device, dtype))
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` items lie there, aligned, initialised, and this value's alone.
        unsafe { std::slice::from_raw_parts(self.items.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.items.as_ptr(), self.len) }
    }
}

impl Pages<u8> {
    /// A tensor's data, without a copy.
    fn into_data(self, shape: Vec<usize>, dtype: DType) -> TensorData {
        let len = self.len;
        // SAFETY: all bytes are initialised.
        let bytes = unsafe { Bytes::from_controller(Box::new(self), len) };
        TensorData::from_bytes(bytes, shape, dtype)
    }
}

impl AllocationController for Pages<u8> {
    fn alloc_align(&self) -> usize {
        ALIGN
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        // SAFETY: of the same layout, and by this function's contract only initialised bytes are written.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.items.as_ptr().cast(), self.len) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        // SAFETY: of the same layout, and initialised bytes may be read as bytes that may be.
        Ok(unsafe { std::slice::from_raw_parts(self.items.as_ptr().cast(), self.len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        let mut pieces: Vec<Pages<u32>> =
            [0, 1, 15, 16, 17, 1000, SLAB / 8, SLAB / 8, SLAB / 8, SLAB / 4].map(Pages::zeroed).into();
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.iter().all(|&x| x == 0) && piece.as_ptr().addr().is_multiple_of(ALIGN));
            piece.fill(i as u32 + 1);
        }
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.iter().all(|&x| x == i as u32 + 1), "piece {i}");
        }
    }

    #[test]
    fn threads_cut_one_slab() {
        let all = std::thread::scope(|scope| {
            let cutters: Vec<_> = (0..4u8)
                .map(|i| {
                    scope.spawn(move || {
                        let cut = |len| {
                            let mut piece = Pages::<u8>::zeroed(len);
                            piece.fill(i);
                            piece
                        };
                        (1..200).map(cut).collect::<Vec<_>>()
                    })
                })
                .collect();
            cutters.into_iter().map(|cutter| cutter.join().expect("pieces")).collect::<Vec<_>>()
        });
        for (i, pieces) in all.iter().enumerate() {
            assert!(pieces.iter().all(|piece| piece.iter().all(|&x| usize::from(x) == i)));
        }
    }

    #[test]
    fn a_tensor_of_pages_is_like_any_other() {
        for x in zeros::<2>(3, [2, 3], DType::F32, &Device::flex()) {
            let held = x.clone();
            let sum = (x + 1.5) * 2.0;
            assert_eq!(sum.into_data(), TensorData::new(vec![3.0f32; 6], [2, 3]));
            assert_eq!(held.into_data(), TensorData::new(vec![0.0f32; 6], [2, 3]));
        }
        let alone = zeros_alone([2, 3], DType::F32, &Device::flex());
        assert_eq!((alone + 1.0).into_data(), TensorData::new(vec![1.0f32; 6], [2, 3]));
        assert_eq!(zeros_alone([0, 3], DType::F16, &Device::flex()).dims(), [0, 3]);
        assert!(zeros::<2>(0, [2, 3], DType::F16, &Device::flex()).is_empty());
        assert_eq!(zeros::<2>(2, [0, 3], DType::F16, &Device::flex())[1].dims(), [0, 3]);
    }
}

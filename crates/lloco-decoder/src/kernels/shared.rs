//! One output slice written by several threads at once, each its own places.

use std::marker::PhantomData;

/// A mutable slice that tasks share. They take disjoint pieces of it; that they are disjoint is each caller's proof.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` is a `&mut [T]` handed out in disjoint pieces, and `&mut [T]` may go to another thread if `T` may.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above; `piece` and `at` are the only accesses, and their contracts exclude overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Shares `slice` for `'a`.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { data: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The `len` items from `start` on.
    ///
    /// # Safety
    /// No other piece that overlaps may be alive.
    ///
    /// # Panics
    /// If the piece does not lie in the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn piece(&self, start: usize, len: usize) -> &mut [T] {
        assert!(self.holds(start, len), "piece {start}+{len} of {}", self.len);
        // SAFETY: within the slice by the check, alone on it by this function's contract, alive for `'a`.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// Whether `len` items lie from `start` on.
    #[inline(always)]
    pub(crate) fn holds(&self, start: usize, len: usize) -> bool {
        start <= self.len && len <= self.len - start
    }

    /// The place of an item, for instructions that write it themselves.
    ///
    /// # Safety
    /// `start` must lie in the slice, and as for [`Shared::piece`] nothing that is written there may be in other use.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, start: usize) -> *mut T {
        // SAFETY: the caller's.
        unsafe { self.data.add(start) }
    }
}

//! Slices that several threads write, each its own part.

/// A slice that several threads write.
pub(crate) struct Span<T> {
    start: *mut T,
    length: usize,
}

// SAFETY: those who write through the pointer promise to write disjoint parts.
unsafe impl<T: Send> Sync for Span<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Span<T> {}

impl<T> Span<T> {
    /// All of `slice`, for as long as the caller keeps it borrowed.
    pub(crate) fn of(slice: &mut [T]) -> Self {
        Span { start: slice.as_mut_ptr(), length: slice.len() }
    }

    /// Where value `index` is.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.length);
        self.start.wrapping_add(index)
    }

    /// Values `range`.
    ///
    /// # Safety
    /// The slice lives, nobody else reads or writes these values meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the slice, by the line above; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

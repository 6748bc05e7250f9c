//! Memory of this process, aligned for every vector unit and cache line.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::fmt;
use std::ptr::NonNull;

use super::{Buffer, Kind, RawHandle};
use crate::Error;

/// Owned bytes whose first lies at a multiple of [`HostBuffer::ALIGNMENT`].
pub struct HostBuffer {
    // Invariant: `start` is valid for reads and writes of `len` initialised bytes, allocated with `layout(len)` when
    // `len > 0` and dangling (but aligned) when `len == 0`; nobody else owns them.
    start: NonNull<u8>,
    len: usize,
}

impl HostBuffer {
    /// Bytes: a cache line, and the widest vector load.
    pub const ALIGNMENT: usize = 64;

    /// `len` bytes of zero. The system hands out the pages when they are first touched. An error, not an end of the
    /// process, where memory is short.
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        let layout = Self::layout(len)?;
        if len == 0 {
            // A multiple of the alignment that is not null.
            return Ok(Self { start: Self::dangling(), len });
        }
        // SAFETY: `layout` has a size greater than zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Ok(Self { start, len }),
            None => Err(Error::OutOfMemory { requested: len as u64 }),
        }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        let mut buffer = Self::zeroed(bytes.len())?;
        buffer.as_mut_slice().copy_from_slice(bytes);
        Ok(buffer)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the invariant of `start` and `len`; `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the invariant of `start` and `len`; `&mut self` keeps everybody else away.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    fn layout(len: usize) -> Result<Layout, Error> {
        Layout::from_size_align(len, Self::ALIGNMENT)
            .map_err(|_| Error::Overflow { what: "the number of bytes", shape: vec![len] })
    }

    fn dangling() -> NonNull<u8> {
        #[repr(align(64))]
        struct Aligned;
        NonNull::<Aligned>::dangling().cast()
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if let (1.., Ok(layout)) = (self.len, Self::layout(self.len)) {
            // SAFETY: by the invariant the bytes were allocated with this layout, and this is their one owner.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

// SAFETY: the buffer owns its bytes alone, as a `Vec<u8>` does.
unsafe impl Send for HostBuffer {}
// SAFETY: through `&HostBuffer` the bytes can only be read.
unsafe impl Sync for HostBuffer {}

impl Buffer for HostBuffer {
    fn kind(&self) -> Kind {
        Kind::Host
    }

    fn len(&self) -> usize {
        self.len
    }

    fn handle(&self) -> RawHandle {
        RawHandle(self.start.as_ptr().addr() as u64)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self.as_slice())
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        Some(self.as_mut_slice())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for HostBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of host memory", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_aligned_and_zero() {
        for len in [0, 1, 63, 64, 65, 4097] {
            let buffer = HostBuffer::zeroed(len).unwrap();
            assert_eq!(buffer.handle().0 % 64, 0);
            assert_eq!(buffer.as_slice(), vec![0; len]);
            assert_eq!(Buffer::len(&buffer), len);
        }
    }

    #[test]
    fn bytes_stay_what_was_written_on_another_thread_too() {
        let mut buffer = HostBuffer::copy_of(b"anchor").unwrap();
        buffer.as_mut_slice()[0] = b'A';
        let buffer = std::thread::spawn(move || buffer).join().unwrap();
        assert_eq!(buffer.as_slice(), b"Anchor");
    }

    #[test]
    fn too_much_memory_is_an_error() {
        assert!(matches!(HostBuffer::zeroed(usize::MAX), Err(Error::Overflow { .. })));
        assert!(matches!(HostBuffer::zeroed(isize::MAX as usize - 63), Err(Error::OutOfMemory { .. })));
    }
}

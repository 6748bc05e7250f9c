//! Arenas: one block, from which buffers are cut one after the other.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_tensor::storage::{Buffer as TensorBuffer, Kind, RawHandle};

use super::{ALIGNMENT, Buffer, Pool};
use crate::Error;

/// Memory of known size for what is needed together and dropped together, such as the activations of one step. Taking
/// a buffer is one addition.
pub struct Arena {
    inner: Arc<Inner>,
}

/// A buffer cut from an [`Arena`], aligned to [`ALIGNMENT`]. Its first content is unspecified.
pub struct ArenaBuffer {
    arena: Arc<Inner>,
    // Invariant: `offset..offset + length` lies in the arena and in no other buffer that lives.
    offset: usize,
    length: usize,
}

struct Inner {
    // Invariant: valid for reads and writes of `capacity` initialised bytes as long as `_block` lives, which nobody
    // else touches.
    start: NonNull<u8>,
    capacity: usize,
    next: AtomicUsize,
    peak: AtomicUsize,
    owner: &'static str,
    _block: Buffer,
}

// SAFETY: the bytes belong to the block in the same struct, which may change threads; the rest are atomics and numbers.
unsafe impl Send for Inner {}
// SAFETY: through `&Inner` only the atomics change; the bytes are reached through buffers, whose ranges are disjoint.
unsafe impl Sync for Inner {}

impl Arena {
    /// Reserves `bytes` from `pool` for `owner`.
    pub fn reserve(pool: &Pool, owner: &'static str, bytes: usize) -> Result<Arena, Error> {
        let mut block = pool.try_take(owner, bytes)?;
        let start = NonNull::from(&mut *block).cast();
        let (next, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Arena { inner: Arc::new(Inner { start, capacity: bytes, next, peak, owner, _block: block }) })
    }

    /// A buffer of `length` bytes behind those that were taken before. An error if the arena is full.
    pub fn take(&self, length: usize) -> Result<ArenaBuffer, Error> {
        let inner = &self.inner;
        let after = |offset: usize| {
            let end = offset.checked_add(length)?.checked_next_multiple_of(ALIGNMENT)?;
            (offset.checked_add(length)? <= inner.capacity).then_some(end)
        };
        let taken = inner.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        let offset = taken.map_err(|used| Error::OutOfMemory {
            owner: inner.owner,
            requested: length as u64,
            available: inner.capacity.saturating_sub(used) as u64,
            limit: inner.capacity as u64,
        })?;
        inner.peak.fetch_max(offset + length, Ordering::Relaxed);
        Ok(ArenaBuffer { arena: inner.clone(), offset, length })
    }

    /// Makes the arena empty. An error if one of its buffers is still in use.
    pub fn reset(&mut self) -> Result<(), Error> {
        let users = Arc::strong_count(&self.inner) - 1;
        match Arc::get_mut(&mut self.inner) {
            Some(inner) => {
                *inner.next.get_mut() = 0;
                Ok(())
            }
            None => Err(Error::Argument(format!("{users} buffers of the arena for {} are in use", self.inner.owner))),
        }
    }

    /// Bytes in all.
    pub fn capacity(&self) -> usize {
        self.inner.capacity
    }

    /// Bytes taken since the last reset, with what alignment costs.
    pub fn used(&self) -> usize {
        self.inner.next.load(Ordering::Relaxed).min(self.inner.capacity)
    }

    /// The most bytes that were ever taken between two resets.
    pub fn peak(&self) -> usize {
        self.inner.peak.load(Ordering::Relaxed)
    }
}

impl ArenaBuffer {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: by the invariants the range is initialised memory of the arena that only this buffer reaches, and
        // `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.arena.start.as_ptr().add(self.offset), self.length) }
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` keeps everybody else away.
        unsafe { std::slice::from_raw_parts_mut(self.arena.start.as_ptr().add(self.offset), self.length) }
    }
}

impl TensorBuffer for ArenaBuffer {
    fn kind(&self) -> Kind {
        Kind::Host
    }

    fn len(&self) -> usize {
        self.length
    }

    fn handle(&self) -> RawHandle {
        RawHandle(self.as_slice().as_ptr().addr() as u64)
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

#[cfg(test)]
mod tests {
    use windlass_tensor::Storage;

    use super::*;

    #[test]
    fn buffers_are_cut_in_order_and_a_reset_needs_all_of_them_back() {
        let pool = Pool::new(1 << 20);
        let mut arena = Arena::reserve(&pool, "activations", 1000).unwrap();
        let mut a = arena.take(100).unwrap();
        let b = Storage::new(arena.take(10).unwrap());
        a.as_mut_slice().fill(1);
        assert_eq!(b.buffer().handle().0 - a.handle().0, 128);
        assert_eq!((arena.used(), arena.peak()), (192, 138));
        let error = arena.take(900).err().unwrap().to_string();
        assert_eq!(error, "out of memory: activations needs 900 bytes, 808 bytes of 1000 bytes are left");
        assert!(arena.take(usize::MAX).is_err());
        drop(a);
        assert_eq!(arena.reset().unwrap_err().to_string(), "1 buffers of the arena for activations are in use");
        drop(b);
        arena.reset().unwrap();
        assert_eq!(arena.take(1000).unwrap().as_slice().len(), 1000);
        assert_eq!((arena.used(), arena.peak(), arena.capacity()), (1000, 1000, 1000));
        assert!(arena.take(1).is_err() && arena.take(0).is_err());
        drop(arena);
        assert_eq!(pool.statistics().allocated, 0);
    }

    #[test]
    fn a_buffer_outlives_its_arena_and_threads_never_meet() {
        let pool = Pool::new(1 << 20);
        let arena = Arena::reserve(&pool, "threads", 1 << 18).unwrap();
        let kept: Vec<ArenaBuffer> = std::thread::scope(|scope| {
            let fill = |thread: u8| {
                let take = |n: usize| {
                    let mut buffer = arena.take(n % 50).unwrap();
                    buffer.as_mut_slice().fill(thread);
                    buffer
                };
                (0..500).map(take).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || fill(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        drop(arena);
        for (index, buffer) in kept.iter().enumerate() {
            assert!(buffer.as_slice().iter().all(|byte| usize::from(*byte) == index / 500));
        }
        assert_eq!(pool.statistics().buffers, 1);
        drop(kept);
        assert_eq!(pool.statistics().buffers, 0);
    }
}

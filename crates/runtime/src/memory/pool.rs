//! Pools: buffers by size class, within a budget.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use windlass_tensor::storage::{self, Kind, RawHandle};

use super::ledger::{Ledger, OwnerStatistics, Statistics, TraceEntry};
use super::{Host, HostBlock};
use crate::{Error, monitor};

/// Where a pool has its blocks from: the host, or a device by way of its provider.
pub trait Source: Send + Sync + 'static {
    /// A piece of memory that is freed when dropped.
    type Block: Send + Sync;

    /// Name of the device, for the memory timeline.
    fn name(&self) -> &'static str;

    /// A new block of `bytes`, or what the system says.
    fn allocate(&self, bytes: usize) -> io::Result<Self::Block>;
}

/// A shared pool of buffers with one budget. Cloning gives another handle of the same pool.
///
/// A buffer goes back to the pool when it is dropped; what lies idle is given back to the system before a request is
/// refused or has to wait. Sizes are rounded up to a quarter of a power of two, so that buffers are reused.
pub struct Pool<S: Source = Host> {
    shared: Arc<Shared<S>>,
}

struct Shared<S: Source> {
    source: S,
    state: Mutex<State<S>>,
    freed: Condvar,
}

struct State<S: Source> {
    ledger: Ledger,
    /// Idle blocks by their size.
    idle: BTreeMap<usize, Vec<S::Block>>,
}

/// A buffer of host memory lent by a [`Pool`], aligned to [`super::ALIGNMENT`]. Its first content is unspecified.
pub type Buffer = Lent<Host>;

/// A block lent by a [`Pool`], which gets it back when this is dropped.
pub struct Lent<S: Source> {
    /// Present until the buffer is dropped.
    block: Option<S::Block>,
    /// Bytes of the block, and of these what was asked for.
    bytes: usize,
    length: usize,
    owner: &'static str,
    pool: Pool<S>,
}

impl Pool {
    /// A pool of host memory that never reserves more than `limit` bytes.
    pub fn new(limit: u64) -> Pool {
        Pool::with_source(Host, limit)
    }
}

impl<S: Source> Pool<S> {
    /// A pool of blocks of `source` that never reserves more than `limit` bytes.
    pub fn with_source(source: S, limit: u64) -> Self {
        let state = State { ledger: Ledger::new(limit), idle: BTreeMap::new() };
        Pool { shared: Arc::new(Shared { source, state: Mutex::new(state), freed: Condvar::new() }) }
    }

    /// A zero-initialised or reused buffer of `length` bytes for `owner`; an error at once if the budget of the pool or
    /// of the owner does not allow it now, or the system refuses.
    pub fn try_take(&self, owner: &'static str, length: usize) -> Result<Lent<S>, Error> {
        let mut state = self.lock();
        self.lend(&mut state, owner, length)?.ok_or_else(|| state.ledger.refusal(owner, length))
    }

    /// As [`Pool::try_take`], but waits for other users of the pool to give back what is missing. Only a request that
    /// could never be met is an error.
    pub fn take(&self, owner: &'static str, length: usize) -> Result<Lent<S>, Error> {
        let mut state = self.lock();
        loop {
            if class(length) as u64 > state.ledger.limit(owner) {
                return Err(state.ledger.refusal(owner, length));
            }
            if let Some(buffer) = self.lend(&mut state, owner, length)? {
                return Ok(buffer);
            }
            state = self.shared.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reserves `count` blocks for buffers of `length` bytes, so that taking them later asks nothing of the system.
    pub fn prepare(&self, owner: &'static str, length: usize, count: usize) -> Result<(), Error> {
        // Held together, or the second would be the first again; dropped, they lie idle.
        let taken: Result<Vec<_>, Error> = (0..count).map(|_| self.try_take(owner, length)).collect();
        taken.map(drop)
    }

    /// Gives a budget to one owner within that of the pool, or takes it away.
    pub fn set_owner_limit(&self, owner: &'static str, limit: Option<u64>) {
        self.lock().ledger.set_limit(owner, limit);
        self.shared.freed.notify_all();
    }

    /// Gives all idle blocks back to the system.
    pub fn trim(&self) {
        self.lock().release(u64::MAX);
    }

    /// What the pool holds now, and its peaks.
    pub fn statistics(&self) -> Statistics {
        self.lock().ledger.statistics
    }

    /// Who has what, by name.
    pub fn owners(&self) -> Vec<OwnerStatistics> {
        self.lock().ledger.owners()
    }

    /// Begins to measure peaks from what is held now.
    pub fn reset_peaks(&self) {
        self.lock().ledger.reset_peaks();
    }

    /// Begins a trace that keeps the last `capacity` changes.
    pub fn start_trace(&self, capacity: usize) {
        self.lock().ledger.start_trace(capacity);
    }

    /// Ends the trace and hands it over; empty if none was begun.
    pub fn stop_trace(&self) -> Vec<TraceEntry> {
        self.lock().ledger.stop_trace()
    }

    /// A buffer, or `None` if the budget does not allow it now.
    fn lend(&self, state: &mut State<S>, owner: &'static str, length: usize) -> Result<Option<Lent<S>>, Error> {
        let Some(found) = state.find(&self.shared.source, owner, class(length)) else { return Ok(None) };
        let refused = |source| Error::Refused { owner, requested: length as u64, source };
        let Found { block, bytes, reused } = found.map_err(refused)?;
        state.ledger.lend(owner, length as u64, bytes as u64, reused);
        self.show(state);
        Ok(Some(Lent { block: Some(block), bytes, length, owner, pool: self.clone() }))
    }

    fn show(&self, state: &State<S>) {
        if monitor::enabled() {
            let Statistics { allocated, reserved, .. } = state.ledger.statistics;
            monitor::memory(self.shared.source.name(), allocated, reserved - allocated);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Pool { shared: self.shared.clone() }
    }
}

struct Found<B> {
    block: B,
    bytes: usize,
    reused: bool,
}

impl<S: Source> State<S> {
    /// An idle block, or a new one, of `bytes` or somewhat more. `None` if the budget does not allow it.
    fn find(&mut self, source: &S, owner: &'static str, bytes: usize) -> Option<io::Result<Found<S::Block>>> {
        // A much larger one would stay half empty for as long as this is needed.
        let most = bytes.saturating_add(bytes / 4);
        let fitting = self.idle.range_mut(bytes..=most).find(|(_, blocks)| !blocks.is_empty());
        if let Some((&bytes, blocks)) = fitting
            && self.ledger.allows(owner, bytes as u64)
        {
            return blocks.pop().map(|block| Ok(Found { block, bytes, reused: true }));
        }
        if !self.ledger.allows(owner, bytes as u64) {
            return None;
        }
        let Statistics { reserved, limit, .. } = self.ledger.statistics;
        let needed = reserved.checked_add(bytes as u64)?;
        self.release(needed.saturating_sub(limit));
        if self.ledger.statistics.reserved + bytes as u64 > limit {
            return None;
        }
        let block = source.allocate(bytes).or_else(|_| {
            self.release(u64::MAX);
            source.allocate(bytes)
        });
        if block.is_ok() {
            self.ledger.reserve(bytes as u64);
        }
        Some(block.map(|block| Found { block, bytes, reused: false }))
    }

    /// Gives idle blocks back to the system, the largest first, until that makes at least `wanted` bytes.
    fn release(&mut self, wanted: u64) {
        let mut released = 0;
        for (bytes, blocks) in self.idle.iter_mut().rev() {
            while released < wanted && blocks.pop().is_some() {
                released += *bytes as u64;
            }
        }
        self.ledger.statistics.reserved -= released;
    }
}

/// Bytes of the block for a request of `length`: the next of four steps between powers of two.
fn class(length: usize) -> usize {
    let length = length.max(4096);
    let step = 1 << ((length - 1).ilog2() - 2);
    length.checked_next_multiple_of(step).unwrap_or(usize::MAX)
}

impl<S: Source> Lent<S> {
    /// Number of bytes that were asked for.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The block, which may be larger. `None` never: the block goes only when this does.
    pub fn block(&self) -> Option<&S::Block> {
        self.block.as_ref()
    }

    /// The block, for writing.
    pub fn block_mut(&mut self) -> Option<&mut S::Block> {
        self.block.as_mut()
    }
}

impl<S: Source> Drop for Lent<S> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let mut state = self.pool.lock();
            state.ledger.give_back(self.owner, self.length as u64, self.bytes as u64);
            state.idle.entry(self.bytes).or_default().push(block);
            self.pool.show(&state);
            drop(state);
            self.pool.shared.freed.notify_all();
        }
    }
}

impl Buffer {
    /// The buffer as `f32` values; its length must be a multiple of four.
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &HostBlock::as_slice(block)[..self.length])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.block.as_mut().map_or(&mut [], |block| &mut HostBlock::as_mut_slice(block)[..self.length])
    }
}

impl storage::Buffer for Buffer {
    fn kind(&self) -> Kind {
        Kind::Host
    }

    fn len(&self) -> usize {
        self.length
    }

    fn handle(&self) -> RawHandle {
        RawHandle(self.as_ptr().addr() as u64)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self)
    }

    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use windlass_tensor::{DType, Storage, Tensor};

    use super::*;
    use crate::memory::ALIGNMENT;

    #[test]
    fn buffers_are_aligned_counted_and_reused() {
        let pool = Pool::new(1 << 20);
        let mut a = pool.try_take("test", 5000).unwrap();
        a[4999] = 7;
        assert_eq!((a.deref().len(), a.as_ptr() as usize % ALIGNMENT), (5000, 0));
        assert_eq!((pool.statistics().allocated, pool.statistics().requested), (5120, 5000));
        drop(a);
        let again = pool.try_take("other", 4097).unwrap();
        assert_eq!(pool.statistics().reserved, 5120);
        drop(again);
        let expected = Statistics {
            reserved: 5120,
            peak: 5120,
            peak_allocated: 5120,
            limit: 1 << 20,
            taken: 2,
            reused: 1,
            ..Statistics::default()
        };
        assert_eq!(pool.statistics(), expected);
        assert_eq!(pool.statistics().fragmentation(), 1.0);
        pool.trim();
        assert_eq!(pool.statistics().reserved, 0);
    }

    #[test]
    fn classes_waste_a_fifth_at_most() {
        assert_eq!([0, 1, 4096, 4097, 5121, 8192, 8193].map(class), [4096, 4096, 4096, 5120, 6144, 8192, 10240]);
        for length in (4096..1 << 20).step_by(997) {
            let bytes = class(length);
            assert!(
                bytes >= length && bytes * 4 <= length * 5 && bytes.is_multiple_of(ALIGNMENT) && class(bytes) == bytes
            );
        }
        assert_eq!(class(usize::MAX), usize::MAX);
    }

    #[test]
    fn the_budget_refuses_and_idle_buffers_make_room() {
        let pool = Pool::new(16384);
        let a = pool.try_take("weights", 8192).unwrap();
        let refused = pool.try_take("weights", 16384).err().unwrap().to_string();
        assert_eq!(refused, "out of memory: weights needs 16 KiB, 8.0 KiB of 16 KiB are left");
        drop(a);
        assert!(pool.try_take("weights", 16384).is_ok());
        assert!(pool.take("weights", 16385).is_err());
        assert!(pool.take("weights", usize::MAX).is_err());
        assert!(matches!(Pool::new(u64::MAX).try_take("all", 1 << 62), Err(Error::Refused { .. })));
    }

    #[test]
    fn owners_have_budgets_and_figures_of_their_own() {
        let pool = Pool::new(1 << 20);
        pool.set_owner_limit("cache", Some(8192));
        let weights = pool.try_take("weights", 65536).unwrap();
        let cache = pool.try_take("cache", 8192).unwrap();
        let refused = pool.try_take("cache", 4096).err().unwrap().to_string();
        assert_eq!(refused, "out of memory: cache needs 4.0 KiB, 0 bytes of 8.0 KiB are left");
        assert!(pool.take("cache", 9000).is_err(), "could never be met");
        drop(weights);
        let [cached, weighed] = pool.owners()[..] else { panic!() };
        assert_eq!((cached.owner, cached.allocated, cached.buffers, cached.limit), ("cache", 8192, 1, Some(8192)));
        assert_eq!((weighed.allocated, weighed.peak, weighed.buffers, weighed.taken), (0, 65536, 0, 1));
        pool.reset_peaks();
        assert_eq!(pool.owners()[1].peak, 0);
        pool.set_owner_limit("cache", None);
        assert!(pool.try_take("cache", 4096).is_ok());
        drop(cache);
    }

    #[test]
    fn a_waiting_request_is_woken() {
        let pool = Pool::new(8192);
        let held = pool.take("first", 8192).unwrap();
        let other = pool.clone();
        let waiting = std::thread::spawn(move || other.take("second", 8192).map(|b| b.deref().len()));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap(), 8192);
    }

    #[test]
    fn many_threads_stay_within_the_budget_and_the_books_balance() {
        let pool = Pool::new(256 << 10);
        let most = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..6usize {
                let (pool, most) = (&pool, &most);
                scope.spawn(move || {
                    for n in 0..400usize {
                        let length = 1 + (n * 7919 + thread * 104_729) % 60_000;
                        let mut buffer = pool.take("thread", length).unwrap();
                        buffer.fill(thread as u8);
                        most.fetch_max(pool.statistics().reserved, Ordering::Relaxed);
                        assert!(buffer.iter().all(|byte| *byte == thread as u8));
                    }
                });
            }
        });
        let statistics = pool.statistics();
        assert!(most.into_inner() <= 256 << 10 && statistics.peak <= 256 << 10);
        assert_eq!((statistics.allocated, statistics.requested, statistics.buffers, statistics.taken), (0, 0, 0, 2400));
    }

    #[test]
    fn prepared_buffers_ask_nothing_of_the_system() {
        let pool = Pool::new(1 << 20);
        pool.prepare("decode", 10_000, 3).unwrap();
        let before = pool.statistics();
        let taken: Vec<_> = (0..3).map(|_| pool.try_take("decode", 10_000).unwrap()).collect();
        let after = pool.statistics();
        assert_eq!((after.reserved, after.reused - before.reused), (before.reserved, 3));
        drop(taken);
        assert!(pool.prepare("decode", 1 << 19, 3).is_err());
        assert_eq!(pool.statistics().allocated, 0);
    }

    #[test]
    fn a_trace_says_who_took_and_gave_back() {
        let pool = Pool::new(1 << 20);
        assert!(pool.stop_trace().is_empty());
        pool.start_trace(3);
        (0..5).for_each(|_| drop(pool.try_take("scratch", 4096)));
        let kept = pool.try_take("kept", 8192).unwrap();
        let trace = pool.stop_trace();
        let changes: Vec<_> = trace.iter().map(|e| (e.owner, e.bytes, e.allocated)).collect();
        assert_eq!(changes, [("scratch", 4096, 4096), ("scratch", -4096, 0), ("kept", 8192, 8192)]);
        assert!(trace.windows(2).all(|pair| pair[0].at <= pair[1].at));
        drop(kept);
        assert!(pool.stop_trace().is_empty());
    }

    #[test]
    fn a_tensor_stands_on_a_pooled_buffer() {
        let pool = Pool::new(1 << 20);
        let mut storage = Storage::new(pool.try_take("tensor", 16).unwrap());
        storage.bytes_mut().unwrap().copy_from_slice(bytemuck::cast_slice(&[1f32, 2.0, 3.0, 4.0]));
        let tensor = Tensor::new(storage, DType::F32, [2, 2]).unwrap();
        assert_eq!(pool.statistics().buffers, 1);
        let view = tensor.select(0, 1).unwrap();
        drop(tensor);
        assert_eq!(pool.statistics().buffers, 1, "the view holds it");
        drop(view);
        assert_eq!(pool.statistics().buffers, 0);
    }

    /// A device whose memory the host only counts.
    struct Counted(AtomicU64);

    impl Source for Counted {
        type Block = usize;

        fn name(&self) -> &'static str {
            "counted:0"
        }

        fn allocate(&self, bytes: usize) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if bytes > 1 << 16 { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(bytes) }
        }
    }

    #[test]
    fn a_provider_pools_the_memory_of_its_device() {
        let pool = Pool::with_source(Counted(AtomicU64::new(0)), 1 << 20);
        for _ in 0..10 {
            let lent = pool.try_take("kernel", 5000).unwrap();
            assert_eq!((lent.block(), lent.length()), (Some(&5120), 5000));
        }
        assert_eq!(pool.shared.source.0.load(Ordering::Relaxed), 1);
        let error = pool.try_take("kernel", 1 << 17).err().unwrap();
        assert!(matches!(error, Error::Refused { owner: "kernel", requested: 131_072, .. }), "{error}");
        assert_eq!(pool.statistics().reserved, 0, "idle blocks were given back before the second try");
    }
}

//! Budgets that refuse, and pools of aligned buffers that stay within one.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::Error;

/// Alignment of pooled buffers: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// A shared pool of buffers with one budget. Cloning gives another handle of the same pool.
///
/// A buffer goes back to the pool when it is dropped; what lies idle is given back to the system before a request is
/// refused or has to wait.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// True figures of a pool, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// In buffers that are in use.
    pub allocated: u64,
    /// Taken from the system: in use or idle.
    pub reserved: u64,
    /// The most that was reserved at one time.
    pub peak: u64,
    pub limit: u64,
}

struct Shared {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    statistics: Statistics,
    /// Idle buffers by power of two of their size.
    idle: Vec<Vec<Block>>,
}

impl Pool {
    /// A pool that never reserves more than `limit` bytes.
    pub fn new(limit: u64) -> Pool {
        let statistics = Statistics { limit, ..Statistics::default() };
        let state = State { statistics, idle: (0..64).map(|_| Vec::new()).collect() };
        Pool { shared: Arc::new(Shared { state: Mutex::new(state), freed: Condvar::new() }) }
    }

    /// A zero-initialised or reused buffer of `length` bytes; an error at once if the budget does not allow it now.
    pub fn try_take(&self, what: &'static str, length: usize) -> Result<Buffer, Error> {
        let mut state = self.lock();
        state.take(length).map(|block| self.buffer(block, length)).ok_or_else(|| state.refusal(what, length))
    }

    /// As [`Pool::try_take`], but waits for other users of the pool to give back what is missing. Only a request that
    /// could never be met is an error.
    pub fn take(&self, what: &'static str, length: usize) -> Result<Buffer, Error> {
        let mut state = self.lock();
        if bucket_bytes(length) as u64 > state.statistics.limit {
            return Err(state.refusal(what, length));
        }
        loop {
            if let Some(block) = state.take(length) {
                return Ok(self.buffer(block, length));
            }
            state = self.shared.freed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// What the pool holds now, and its peak.
    pub fn statistics(&self) -> Statistics {
        self.lock().statistics
    }

    fn buffer(&self, block: Block, length: usize) -> Buffer {
        Buffer { block: Some(block), length, pool: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn take(&mut self, length: usize) -> Option<Block> {
        let bytes = bucket_bytes(length);
        if let Some(block) = self.idle[bucket(bytes)].pop() {
            self.statistics.allocated += bytes as u64;
            return Some(block);
        }
        if self.statistics.reserved + bytes as u64 > self.statistics.limit {
            self.release_idle();
        }
        if self.statistics.reserved + bytes as u64 > self.statistics.limit {
            return None;
        }
        self.statistics.reserved += bytes as u64;
        self.statistics.allocated += bytes as u64;
        self.statistics.peak = self.statistics.peak.max(self.statistics.reserved);
        Some(Block::new(bytes))
    }

    fn release_idle(&mut self) {
        for list in &mut self.idle {
            self.statistics.reserved -= list.iter().map(|b| b.bytes() as u64).sum::<u64>();
            list.clear();
        }
    }

    fn refusal(&self, what: &'static str, length: usize) -> Error {
        let Statistics { allocated, limit, .. } = self.statistics;
        Error::OutOfMemory { what, requested: length as u64, available: limit.saturating_sub(allocated), limit }
    }
}

/// Bytes that a request for `length` reserves: the next power of two, so that buffers are reused.
fn bucket_bytes(length: usize) -> usize {
    length.max(4096).next_power_of_two()
}

fn bucket(bytes: usize) -> usize {
    bytes.trailing_zeros() as usize
}

/// One cache line of bytes; a vector of them is aligned without unsafe code of our own.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

struct Block(Vec<Line>);

impl Block {
    fn new(bytes: usize) -> Block {
        Block(bytemuck::zeroed_vec(bytes / ALIGNMENT))
    }

    fn bytes(&self) -> usize {
        self.0.len() * ALIGNMENT
    }
}

/// A buffer lent by a [`Pool`], aligned to [`ALIGNMENT`]. Its first content is unspecified.
pub struct Buffer {
    /// Present until the buffer is dropped.
    block: Option<Block>,
    length: usize,
    pool: Pool,
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
        let lines = self.block.as_ref().map_or(&[][..], |b| &b.0);
        &bytemuck::cast_slice(lines)[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let lines = self.block.as_mut().map_or(&mut [][..], |b| &mut b.0);
        &mut bytemuck::cast_slice_mut(lines)[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let mut state = self.pool.lock();
            state.statistics.allocated -= block.bytes() as u64;
            state.idle[bucket(block.bytes())].push(block);
            drop(state);
            self.pool.shared.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_counted_and_reused() {
        let pool = Pool::new(1 << 20);
        let mut a = pool.try_take("test", 5000).unwrap();
        a[4999] = 7;
        assert_eq!((a.len(), a.as_ptr() as usize % ALIGNMENT), (5000, 0));
        assert_eq!(pool.statistics().allocated, 8192);
        drop(a);
        let again = pool.try_take("test", 6000).unwrap();
        assert_eq!(pool.statistics().reserved, 8192);
        drop(again);
        assert_eq!(pool.statistics(), Statistics { allocated: 0, reserved: 8192, peak: 8192, limit: 1 << 20 });
    }

    #[test]
    fn the_budget_refuses_and_idle_buffers_make_room() {
        let pool = Pool::new(16384);
        let a = pool.try_take("weights", 8192).unwrap();
        let refused = pool.try_take("weights", 16384).err().unwrap().to_string();
        assert_eq!(refused, "out of memory: weights needs 16384 bytes, 8192 of 16384 are left");
        drop(a);
        assert!(pool.try_take("weights", 16384).is_ok());
        assert!(pool.take("weights", 16385).is_err());
    }

    #[test]
    fn a_waiting_request_is_woken() {
        let pool = Pool::new(8192);
        let held = pool.take("first", 8192).unwrap();
        let other = pool.clone();
        let waiting = std::thread::spawn(move || other.take("second", 8192).map(|b| b.len()));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap(), 8192);
    }
}

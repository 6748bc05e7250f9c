//! The books of a pool: how much is where, who has it, and what happened when.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::Error;

/// True figures of a pool, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// In buffers that are in use.
    pub allocated: u64,
    /// Of these, what was asked for; the rest is lost to size classes.
    pub requested: u64,
    /// Taken from the system: in use or idle.
    pub reserved: u64,
    /// The most that was reserved at one time.
    pub peak: u64,
    /// The most that was in use at one time.
    pub peak_allocated: u64,
    pub limit: u64,
    /// Number of buffers in use.
    pub buffers: u64,
    /// Number of buffers lent so far.
    pub taken: u64,
    /// Of these, how many needed nothing from the system.
    pub reused: u64,
}

impl Statistics {
    /// Share of the reserved memory that serves nobody, 0 to 1: idle, or lost to size classes.
    pub fn fragmentation(&self) -> f64 {
        if self.reserved == 0 { 0.0 } else { 1.0 - self.requested as f64 / self.reserved as f64 }
    }
}

/// Figures of one owner of buffers, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerStatistics {
    /// What the buffers were taken for.
    pub owner: &'static str,
    pub allocated: u64,
    /// The most that was allocated at one time.
    pub peak: u64,
    /// Number of buffers in use.
    pub buffers: u64,
    /// Number of buffers lent so far.
    pub taken: u64,
    /// A budget of its own, if it has one.
    pub limit: Option<u64>,
}

/// One change of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// Since the trace was begun.
    pub at: Duration,
    pub owner: &'static str,
    /// Size of the block: positive when lent, negative when given back.
    pub bytes: i64,
    /// In use after the change.
    pub allocated: u64,
    /// Reserved after the change.
    pub reserved: u64,
}

/// What the pool's lock guards besides its idle blocks.
#[derive(Default)]
pub(super) struct Ledger {
    pub statistics: Statistics,
    owners: BTreeMap<&'static str, OwnerStatistics>,
    trace: Option<Trace>,
}

struct Trace {
    began: Instant,
    capacity: usize,
    entries: VecDeque<TraceEntry>,
}

impl Ledger {
    /// Empty books with a budget.
    pub fn new(limit: u64) -> Ledger {
        Ledger { statistics: Statistics { limit, ..Statistics::default() }, ..Ledger::default() }
    }

    /// Whether `owner` may have `bytes` more, by its own budget.
    pub fn allows(&self, owner: &'static str, bytes: u64) -> bool {
        self.owners.get(owner).is_none_or(|o| o.limit.is_none_or(|limit| o.allocated.saturating_add(bytes) <= limit))
    }

    /// The least of the pool's budget and the owner's own.
    pub fn limit(&self, owner: &'static str) -> u64 {
        let own = self.owners.get(owner).and_then(|o| o.limit).unwrap_or(u64::MAX);
        own.min(self.statistics.limit)
    }

    pub fn set_limit(&mut self, owner: &'static str, limit: Option<u64>) {
        self.owner(owner).limit = limit;
    }

    /// `bytes` more are reserved from the system.
    pub fn reserve(&mut self, bytes: u64) {
        self.statistics.reserved += bytes;
        self.statistics.peak = self.statistics.peak.max(self.statistics.reserved);
    }

    /// A block of `bytes` is lent to `owner`, who asked for `requested`.
    pub fn lend(&mut self, owner: &'static str, requested: u64, bytes: u64, reused: bool) {
        let statistics = &mut self.statistics;
        statistics.allocated += bytes;
        statistics.peak_allocated = statistics.peak_allocated.max(statistics.allocated);
        statistics.requested += requested;
        statistics.buffers += 1;
        statistics.taken += 1;
        statistics.reused += u64::from(reused);
        let own = self.owner(owner);
        own.allocated += bytes;
        own.peak = own.peak.max(own.allocated);
        own.buffers += 1;
        own.taken += 1;
        self.note(owner, bytes as i64);
    }

    /// A block comes back.
    pub fn give_back(&mut self, owner: &'static str, requested: u64, bytes: u64) {
        self.statistics.allocated -= bytes;
        self.statistics.requested -= requested;
        self.statistics.buffers -= 1;
        let own = self.owner(owner);
        own.allocated -= bytes;
        own.buffers -= 1;
        self.note(owner, -(bytes as i64));
    }

    pub fn refusal(&self, owner: &'static str, requested: usize) -> Error {
        let Statistics { allocated, limit, .. } = self.statistics;
        let mut available = limit.saturating_sub(allocated);
        if let Some(OwnerStatistics { allocated, limit: Some(limit), .. }) = self.owners.get(owner) {
            available = available.min(limit.saturating_sub(*allocated));
        }
        Error::OutOfMemory { owner, requested: requested as u64, available, limit: self.limit(owner) }
    }

    pub fn owners(&self) -> Vec<OwnerStatistics> {
        self.owners.values().copied().collect()
    }

    pub fn reset_peaks(&mut self) {
        self.statistics.peak = self.statistics.reserved;
        self.statistics.peak_allocated = self.statistics.allocated;
        self.owners.values_mut().for_each(|owner| owner.peak = owner.allocated);
    }

    pub fn start_trace(&mut self, capacity: usize) {
        self.trace = Some(Trace { began: Instant::now(), capacity, entries: VecDeque::new() });
    }

    pub fn stop_trace(&mut self) -> Vec<TraceEntry> {
        self.trace.take().map(|trace| trace.entries.into()).unwrap_or_default()
    }

    fn owner(&mut self, owner: &'static str) -> &mut OwnerStatistics {
        let empty = OwnerStatistics { owner, allocated: 0, peak: 0, buffers: 0, taken: 0, limit: None };
        self.owners.entry(owner).or_insert(empty)
    }

    fn note(&mut self, owner: &'static str, bytes: i64) {
        let Statistics { allocated, reserved, .. } = self.statistics;
        if let Some(trace) = &mut self.trace {
            if trace.entries.len() >= trace.capacity {
                trace.entries.pop_front();
            }
            trace.entries.push_back(TraceEntry { at: trace.began.elapsed(), owner, bytes, allocated, reserved });
        }
    }
}

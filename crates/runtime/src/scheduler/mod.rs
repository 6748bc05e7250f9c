//! The low-latency team: threads that are entered once per token or batch and meet at a spinning barrier inside.
//!
//! A pool whose workers sleep between regions costs milliseconds per token, since a token has about two hundred regions of
//! some microseconds each. Here a region costs well under a microsecond: workers spin while a session is young and park
//! when nothing comes.
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! use windlass_runtime::scheduler::Team;
//!
//! let team = Team::new(2);
//! let sum = AtomicUsize::new(0);
//! team.enter(|session| {
//!     session.balance(1000, 16, &|range| {
//!         sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
//!     });
//! });
//! assert_eq!(sum.into_inner(), 499_500);
//! ```

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::Error;
use crate::system::processors;

mod denormals;
mod workers;

use denormals::FlushDenormals;
use workers::Workers;

/// More threads than this are a mistake.
const MOST_THREADS: usize = 1024;

thread_local! {
    /// Whether this thread works in a region, or is in a session of its own: then a region or session inside runs inline.
    static BUSY: Cell<Busy> = const { Cell::new(Busy::No) };
}

#[derive(Clone, Copy, PartialEq)]
enum Busy {
    No,
    Session,
    Region,
}

/// A fixed number of threads that do one thing together.
pub struct Team {
    workers: Workers,
    /// One caller at a time; others wait for their turn.
    turn: Mutex<()>,
}

/// The use of a team by one caller, for one token or one batch.
///
/// On x86-64 denormal floats count as zero in all threads of a session, and become zero: they would make kernels several
/// times slower.
pub struct Session<'a> {
    /// `None` where the work is inline: inside another session or region.
    workers: Option<&'a Workers>,
}

impl Team {
    /// A team of `threads` threads (at least 1, at most 1024): the caller of [`Team::enter`] and `threads - 1` others.
    /// Where the system refuses to start one, the team is smaller.
    pub fn new(threads: usize) -> Team {
        Team { workers: Workers::start(threads.clamp(1, MOST_THREADS) - 1), turn: Mutex::new(()) }
    }

    /// Number of threads that take part, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.count() + 1
    }

    /// Wakes the workers and calls `work`, whose session runs regions on them. Inside a session or a region of any team,
    /// the new session has one thread: the current one. A panic in `work` or in a region comes out here; the team can be
    /// used again.
    pub fn enter<R>(&self, work: impl FnOnce(&Session<'_>) -> R) -> R {
        let _flush = FlushDenormals::new();
        if BUSY.get() != Busy::No {
            return work(&Session { workers: None });
        }
        // A panic of an earlier caller left nothing behind that this one could see.
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let _busy = Mark::new(Busy::Session);
        self.workers.wake();
        work(&Session { workers: Some(&self.workers) })
    }
}

impl Session<'_> {
    /// Number of threads that regions of this session run on.
    pub fn threads(&self) -> usize {
        match self.workers {
            Some(workers) if BUSY.get() != Busy::Region => workers.count() + 1,
            _ => 1,
        }
    }

    /// One region: calls `work(worker, workers)` once on each thread, with `worker` from 0 to `workers - 1`, and returns
    /// when all are done. Inside a region it calls `work(0, 1)` on the current thread. If a thread panics, the others
    /// finish, and the first panic continues here.
    pub fn run(&self, work: &(dyn Fn(usize, usize) + Sync)) {
        match self.workers {
            Some(workers) if BUSY.get() != Busy::Region && workers.count() > 0 => workers.region(work),
            _ => work(0, 1),
        }
    }

    /// Cuts `0..items` into ranges of `grain` (the last may be shorter) and calls `work` once for each. Every thread
    /// takes an equal, contiguous share. The ranges are the same for any number of threads.
    pub fn split(&self, items: usize, grain: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        let pieces = Pieces::new(items, grain);
        if pieces.count < 2 {
            return (0..pieces.count).for_each(|i| work(pieces.range(i)));
        }
        self.run(&|worker, workers| {
            let (first, last) = (pieces.count * worker / workers, pieces.count * (worker + 1) / workers);
            (first..last).for_each(|i| work(pieces.range(i)));
        });
    }

    /// As [`Session::split`], but each thread takes the next range when it is done with one: for ranges of unequal work,
    /// and for machines whose cores are not equally fast. Which thread does a range varies; the ranges do not.
    pub fn balance(&self, items: usize, grain: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        let pieces = Pieces::new(items, grain);
        if pieces.count < 2 {
            return (0..pieces.count).for_each(|i| work(pieces.range(i)));
        }
        let next = AtomicUsize::new(0);
        self.run(&|_, _| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= pieces.count {
                    break;
                }
                work(pieces.range(i));
            }
        });
    }

    /// As [`Session::balance`], for work that memory bounds: every thread begins with one long range, three quarters of its
    /// share, and only the rest is taken range by range. `work` is told where its thread is likely to go on. Ranges depend
    /// on the number of threads; all are multiples of `grain`, but the last.
    pub fn spread(&self, items: usize, grain: usize, work: &(dyn Fn(Range<usize>, usize) + Sync)) {
        let pieces = Pieces::new(items, grain);
        let next = AtomicUsize::new(0);
        self.run(&|worker, workers| {
            let own = pieces.count * 3 / 4 / workers;
            let rest = own * workers;
            let start = |piece: usize| items.min(piece * pieces.grain);
            if own > 0 {
                work(start(own * worker)..start(own * (worker + 1)), start(rest + worker));
            }
            loop {
                let piece = rest + next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces.count {
                    break;
                }
                work(start(piece)..start(piece + 1), start(piece + workers));
            }
        });
    }
}

/// The team that the whole process shares. It has as many threads as the process may use processors (affinity and control
/// groups are heeded), or as [`set_threads`] said.
pub fn team() -> &'static Team {
    TEAM.get_or_init(|| Team::new(processors()))
}

/// Makes the shared team with this many threads. An error if it exists already.
pub fn set_threads(threads: usize) -> Result<(), Error> {
    let mut made = false;
    let team = TEAM.get_or_init(|| {
        made = true;
        Team::new(threads)
    });
    if made { Ok(()) } else { Err(Error::TeamExists { threads: team.threads() }) }
}

static TEAM: OnceLock<Team> = OnceLock::new();

/// Equal ranges of a number of items.
struct Pieces {
    items: usize,
    grain: usize,
    count: usize,
}

impl Pieces {
    fn new(items: usize, grain: usize) -> Pieces {
        let grain = grain.max(1);
        Pieces { items, grain, count: items.div_ceil(grain) }
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index * self.grain;
        start..self.items.min(start.saturating_add(self.grain))
    }
}

/// Sets what this thread is busy with, and back when dropped.
struct Mark(Busy);

impl Mark {
    fn new(busy: Busy) -> Mark {
        Mark(BUSY.replace(busy))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        BUSY.set(self.0);
    }
}

#[cfg(test)]
mod tests;

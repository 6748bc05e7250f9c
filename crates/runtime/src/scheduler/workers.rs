//! The threads of a team and the barrier that they meet at.
//!
//! A region is published by a new epoch. Workers see it (they spin, then park), run the job and count themselves done; the
//! caller runs its own share and waits for the count. Epoch and count lie on cache lines of their own.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::denormals::FlushDenormals;
use super::{Busy, Mark};

/// How long a worker that has nothing to do spins before it parks.
const SPIN: Duration = Duration::from_micros(80);

/// Rounds of spinning after which a thread lets others have the core now and then: they may hold what it waits for.
const PATIENCE: u32 = 200;

type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// Counts regions. A worker that sees a new one runs the job.
    epoch: Line<AtomicUsize>,
    /// Workers that are done with the job of this epoch.
    done: Line<AtomicUsize>,
    /// Workers that are parked, or about to be.
    parked: Line<AtomicUsize>,
    /// Whether a caller is in a region.
    running: AtomicBool,
    /// The job, and how many threads it is for. Written by the caller that set `running`, read by workers.
    job: UnsafeCell<Option<(*const Job<'static>, usize)>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written only while no worker reads it: before the epoch that announces it (a release that workers
// acquire), and after all of them counted themselves done (a release that the caller acquires). The job itself is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is not tied to a thread.
unsafe impl Send for Shared {}

impl Workers {
    /// As many of `count` workers as the system starts.
    pub(super) fn start(count: usize) -> Workers {
        let shared = Arc::new(Shared {
            epoch: Line(AtomicUsize::new(0)),
            done: Line(AtomicUsize::new(0)),
            parked: Line(AtomicUsize::new(0)),
            running: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let spawn = |index: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("windlass-{index}")).spawn(move || shared.work(index)).ok()
        };
        let threads = (1..=count).map_while(spawn).collect();
        Workers { shared, threads }
    }

    pub(super) fn count(&self) -> usize {
        self.threads.len()
    }

    /// Has parked workers spin, so that the first region finds them awake.
    pub(super) fn wake(&self) {
        if self.shared.parked.0.load(Ordering::SeqCst) > 0 {
            self.threads.iter().for_each(|thread| thread.thread().unpark());
        }
    }

    /// A new epoch, for those who spin and for those who sleep.
    fn announce(&self) {
        // Sequentially consistent, as in `wait`: either the worker sees the epoch or this sees that it is parked.
        self.shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// Runs `job` on all workers and here; on this thread alone while another thread is at it.
    pub(super) fn region(&self, job: &Job<'_>) {
        let workers = self.count() + 1;
        let shared = &*self.shared;
        if shared.running.swap(true, Ordering::Acquire) {
            return job(0, 1);
        }
        shared.done.0.store(0, Ordering::Relaxed);
        // SAFETY: lengthens the life of the reference only in type; it is used no longer than this function runs, since it
        // waits for all workers below, whatever panics.
        let job_for_workers = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
        // SAFETY: `running` was false, so that no worker reads the job (see `Sync for Shared`).
        unsafe { *shared.job.get() = Some((job_for_workers, workers)) };
        self.announce();
        let own = catch_unwind(AssertUnwindSafe(|| {
            let _mark = Mark::new(Busy::Region);
            job(0, workers)
        }));
        let mut spins = 0u32;
        while shared.done.0.load(Ordering::Acquire) < self.count() {
            pause(&mut spins);
        }
        // SAFETY: all workers are done with the job.
        unsafe { *shared.job.get() = None };
        let panic = shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        shared.running.store(false, Ordering::Release);
        if let Some(panic) = own.err().or(panic) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.announce();
        for thread in self.threads.drain(..) {
            // A worker catches all panics of jobs; there is nothing to learn from its end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of worker `index`.
    fn work(&self, index: usize) {
        let _flush = FlushDenormals::new();
        let _mark = Mark::new(Busy::Region);
        // No epoch is missed: whoever announces one waits for all workers before the next.
        let mut epoch = 0;
        loop {
            epoch = self.wait(epoch);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.run_job(index);
            self.done.0.fetch_add(1, Ordering::Release);
        }
    }

    fn run_job(&self, index: usize) {
        // SAFETY: the epoch that led here was announced after the job was written, and this worker is not done with it.
        let Some((job, workers)) = (unsafe { *self.job.get() }) else { return };
        // SAFETY: the caller of `region` keeps the job alive until this worker is done with it.
        let job = unsafe { &*job };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(index, workers))) {
            self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
        }
    }

    /// The epoch after `seen`: spins for a while, then parks.
    fn wait(&self, seen: usize) -> usize {
        let mut start = None;
        let mut spins = 0u32;
        loop {
            let epoch = self.epoch.0.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            pause(&mut spins);
            if spins.is_multiple_of(64) && start.get_or_insert_with(Instant::now).elapsed() > SPIN {
                self.parked.0.fetch_add(1, Ordering::SeqCst);
                if self.epoch.0.load(Ordering::SeqCst) == seen {
                    std::thread::park();
                }
                self.parked.0.fetch_sub(1, Ordering::SeqCst);
                // Whoever unparked this thread wants it to spin.
                start = None;
            }
        }
    }
}

fn pause(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if *spins > PATIENCE && spins.is_multiple_of(64) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

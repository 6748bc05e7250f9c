//! Work in planned steps: each step reads, transforms and writes one block; workers take steps in order.
//!
//! A block passes through one worker from read to write, so that it stays in that core's cache. Reads ahead are asked of
//! the operating system (`prefetch`), which overlaps the disk with the work without buffers of our own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Error;
use crate::monitor::{self, Name};

/// A list of steps that are independent of each other.
pub trait Work: Sync {
    type Error: Send + From<Error>;

    /// Number of steps.
    fn steps(&self) -> usize;

    /// Bytes that step `index` moves, for progress.
    fn bytes(&self, index: usize) -> u64;

    /// What kind of step it is, and what it works on: for traces.
    fn about(&self, _index: usize) -> (Name, String) {
        ("step".into(), String::new())
    }

    /// Tells the system that step `index` comes soon. Called ahead of the step, from any worker.
    fn prefetch(&self, _index: usize) {}

    /// Does step `index`. Must give the same result whatever the order and number of workers.
    fn step(&self, index: usize) -> Result<(), Self::Error>;
}

/// How to run.
pub struct Options<'a> {
    /// Number of workers; at least one.
    pub threads: usize,
    /// Set from outside to stop after the steps under way.
    pub stop: &'a AtomicBool,
    /// Called about ten times a second, and at the end, with bytes done and bytes in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Number of steps to announce ahead.
    pub ahead: usize,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub bytes: u64,
    pub elapsed: Duration,
    /// Share of the workers' time that was spent in steps, 0 to 1.
    pub utilisation: f64,
}

/// Runs all steps; the first error stops the rest.
pub fn run<W: Work>(work: &W, options: &Options) -> Result<Report, W::Error> {
    let threads = options.threads.clamp(1, work.steps().max(1));
    let total = (0..work.steps()).map(|i| work.bytes(i)).sum();
    let run = Run {
        work,
        options,
        next: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
        shown: Mutex::new(Instant::now()),
        total,
    };
    let start = Instant::now();
    (0..options.ahead.min(work.steps())).for_each(|i| work.prefetch(i));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| run.worker());
        }
        run.worker();
    });
    let elapsed = start.elapsed();
    if let Some(error) = run.error.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    if run.finished.into_inner() < work.steps() {
        return Err(Error::Interrupted.into());
    }
    (options.progress)(total, total);
    let capacity = elapsed.as_nanos() as f64 * threads as f64;
    let utilisation = if capacity > 0.0 { run.busy.into_inner() as f64 / capacity } else { 0.0 };
    Ok(Report { bytes: total, elapsed, utilisation })
}

struct Run<'a, W: Work> {
    work: &'a W,
    options: &'a Options<'a>,
    next: AtomicUsize,
    finished: AtomicUsize,
    done: AtomicU64,
    busy: AtomicU64,
    failed: AtomicBool,
    error: Mutex<Option<W::Error>>,
    shown: Mutex<Instant>,
    total: u64,
}

impl<W: Work> Run<'_, W> {
    fn worker(&self) {
        while !self.options.stop.load(Ordering::Relaxed) && !self.failed.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.work.steps() {
                return;
            }
            if index + self.options.ahead < self.work.steps() {
                self.work.prefetch(index + self.options.ahead);
            }
            let start = Instant::now();
            let span = monitor::enabled().then(|| {
                let (kind, what) = self.work.about(index);
                monitor::span(kind, "pipeline").with("of", what).with("bytes", self.work.bytes(index))
            });
            let done = self.work.step(index);
            drop(span);
            if let Err(error) = done {
                self.failed.store(true, Ordering::Relaxed);
                self.error.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                return;
            }
            self.busy.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            self.finished.fetch_add(1, Ordering::Relaxed);
            let bytes = self.work.bytes(index);
            self.show(self.done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
    }

    fn show(&self, done: u64) {
        if let Ok(mut shown) = self.shown.try_lock()
            && shown.elapsed() > Duration::from_millis(100)
        {
            *shown = Instant::now();
            (self.options.progress)(done, self.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Squares {
        results: Vec<AtomicU64>,
        fail_at: Option<usize>,
        stop: AtomicBool,
    }

    impl Work for Squares {
        type Error = Error;

        fn steps(&self) -> usize {
            self.results.len()
        }

        fn bytes(&self, _: usize) -> u64 {
            8
        }

        fn step(&self, index: usize) -> Result<(), Error> {
            if self.fail_at == Some(index) {
                return Err(Error::OutOfMemory { owner: "a test", requested: 1, available: 0, limit: 0 });
            }
            self.results[index].fetch_add((index * index) as u64, Ordering::Relaxed);
            if index == 50 && self.results.len() == 51_000 {
                self.stop.store(true, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    fn squares(steps: usize, fail_at: Option<usize>) -> Squares {
        Squares { results: (0..steps).map(|_| AtomicU64::new(0)).collect(), fail_at, stop: AtomicBool::new(false) }
    }

    fn go(work: &Squares, threads: usize) -> Result<Report, Error> {
        run(work, &Options { threads, stop: &work.stop, progress: &|_, _| {}, ahead: 2 })
    }

    #[test]
    fn every_step_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let work = squares(1000, None);
            let report = go(&work, threads).unwrap();
            assert_eq!(report.bytes, 8000);
            assert!(work.results.iter().enumerate().all(|(i, r)| r.load(Ordering::Relaxed) == (i * i) as u64));
        }
    }

    #[test]
    fn an_error_stops_the_rest() {
        let work = squares(100_000, Some(3));
        assert!(go(&work, 2).is_err());
        assert_eq!(work.results[99_999].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_stop_is_reported_as_interrupted() {
        let work = squares(51_000, None);
        assert!(matches!(go(&work, 1), Err(Error::Interrupted)));
    }
}

//! The workers that run streams.

use std::cell::Cell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::{Inner, Name, Stream, system};
use crate::Error;

/// A number of threads that run any number of streams. It ends with its last stream and handle.
pub struct Executor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    ready: BinaryHeap<Ready>,
    /// Counts what was made ready: of equal priority, the first comes first.
    sequence: u64,
    closing: bool,
}

struct Ready {
    rank: (i32, Reverse<u64>),
    stream: Arc<Inner>,
}

thread_local! {
    static WORKER: Cell<bool> = const { Cell::new(false) };
}

impl Executor {
    /// An executor of `threads` workers, at least one. An error if the system starts none.
    pub fn new(threads: usize) -> Result<Arc<Executor>, Error> {
        let shared = Arc::new(Shared { state: Mutex::default(), more: Condvar::new() });
        let mut started = Vec::new();
        for index in 0..threads.max(1) {
            let worker = shared.clone();
            let name = format!("stream worker {index}");
            match std::thread::Builder::new().name(name).spawn(move || worker.work()) {
                Ok(thread) => started.push(thread),
                Err(source) if started.is_empty() => {
                    return Err(Error::Io { what: "a thread for streams".into(), source });
                }
                Err(_) => break,
            }
        }
        Ok(Arc::new(Executor { shared, threads: started }))
    }

    /// The one that [`Stream::new`] uses, with a worker for each processor.
    pub fn of_process() -> &'static Arc<Executor> {
        static EXECUTOR: OnceLock<Arc<Executor>> = OnceLock::new();
        EXECUTOR.get_or_init(|| {
            Executor::new(system::processors()).unwrap_or_else(|_| {
                // Without a thread nothing can run beside the callers: `stream` makes inline streams then.
                let shared = Arc::new(Shared { state: Mutex::default(), more: Condvar::new() });
                Arc::new(Executor { shared, threads: Vec::new() })
            })
        })
    }

    /// A new stream on these workers.
    pub fn stream(self: &Arc<Self>, name: impl Into<Name>, priority: i32) -> Stream {
        let executor = (!self.threads.is_empty()).then(|| self.clone());
        Stream::build(name.into(), priority, executor)
    }

    /// Number of workers.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn ready(&self, stream: Arc<Inner>) {
        self.shared.ready(stream);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Every stream that has work holds the executor: now there is none.
        self.shared.lock().closing = true;
        self.shared.more.notify_all();
        let here = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != here) {
            // A worker cannot panic: it catches what work throws.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        WORKER.set(true);
        while let Some(stream) = self.next() {
            if stream.step() {
                self.ready(stream);
            }
        }
    }

    fn next(&self) -> Option<Arc<Inner>> {
        let mut state = self.lock();
        loop {
            if let Some(ready) = state.ready.pop() {
                return Some(ready.stream);
            }
            if state.closing {
                return None;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ready(&self, stream: Arc<Inner>) {
        let mut state = self.lock();
        state.sequence += 1;
        let rank = (stream.priority, Reverse(state.sequence));
        state.ready.push(Ready { rank, stream });
        drop(state);
        self.more.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error on a worker: it would wait for work that may need this very worker.
pub(super) fn forbid_waiting() -> Result<(), Error> {
    if WORKER.get() {
        let message = "work on a stream cannot wait for streams or events: let its stream wait for the event instead";
        return Err(Error::Argument(message.into()));
    }
    Ok(())
}

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ready {}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

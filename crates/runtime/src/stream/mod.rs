//! Streams: work in order, beside other work.
//!
//! The work of one stream is done in the order of its submission; streams run side by side on the workers of an
//! [`Executor`], those of higher priority first. A stream waits for an [`Event`] of another without holding a worker.
//! An error or panic ends a stream's work until the next [`Stream::synchronize`], which says which op it was; streams
//! that wait for an event behind it fail alike.
//!
//! ```
//! use windlass_runtime::stream::Stream;
//!
//! let (loading, computing) = (Stream::new("load"), Stream::new("compute"));
//! loading.submit("read", || Ok::<(), std::io::Error>(()));
//! let loaded = loading.record();
//! computing.wait(&loaded)?;
//! computing.submit("matmul", || Ok::<(), std::io::Error>(()));
//! computing.synchronize()?;
//! # Ok::<(), windlass_runtime::Error>(())
//! ```

mod event;
mod executor;

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::monitor::{self, Name};
use crate::{Error, system};

pub use event::Event;
pub use executor::Executor;

/// A queue of work that is done in order. Cloning gives another handle of the same stream. Work that is queued is done
/// even if every handle is dropped.
#[derive(Clone)]
pub struct Stream {
    inner: Arc<Inner>,
}

struct Inner {
    name: Name,
    priority: i32,
    /// Who runs it; the caller, if nobody does.
    executor: Option<Arc<Executor>>,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    /// Whether an executor has it: ready, running, or waiting for an event.
    scheduled: bool,
    failure: Option<Failure>,
}

enum Item {
    Work { op: Name, run: Work },
    Record(Event),
    Wait(Event),
}

type Work = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// What went wrong first, until somebody is told.
#[derive(Clone, Debug)]
struct Failure {
    stream: Name,
    op: Name,
    message: String,
}

thread_local! {
    static CURRENT: RefCell<Option<Stream>> = const { RefCell::new(None) };
}

impl Stream {
    /// A stream of priority 0 on the executor of the process.
    pub fn new(name: impl Into<Name>) -> Stream {
        Executor::of_process().stream(name, 0)
    }

    /// A stream whose work is done by whoever submits it, before [`Stream::submit`] returns.
    pub fn inline(name: impl Into<Name>) -> Stream {
        Self::build(name.into(), 0, None)
    }

    /// The stream that this thread submits to: the one of the innermost [`Stream::scope`], else an inline one.
    pub fn current() -> Stream {
        CURRENT.with_borrow_mut(|current| current.get_or_insert_with(|| Stream::inline("inline")).clone())
    }

    /// Runs `body` with this as the current stream of the thread.
    pub fn scope<T>(&self, body: impl FnOnce() -> T) -> T {
        /// Puts the former stream back, after a panic too.
        struct Restore(Option<Stream>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        body()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its priority: work of streams with a higher one is begun first.
    pub fn priority(&self) -> i32 {
        self.inner.priority
    }

    /// Whether all work is done.
    pub fn is_idle(&self) -> bool {
        !self.inner.lock().scheduled
    }

    /// Queues `work`, which errors call `op`. It is skipped if work before it failed.
    pub fn submit<E: Display>(&self, op: impl Into<Name>, work: impl FnOnce() -> Result<(), E> + Send + 'static) {
        let run = Box::new(move || work().map_err(|error| error.to_string()));
        self.push(Item::Work { op: op.into(), run });
    }

    /// An event that is done when all work queued so far is.
    pub fn record(&self) -> Event {
        let event = Event::pending();
        self.push(Item::Record(event.clone()));
        event
    }

    /// Lets the work queued from now on wait for `event`. On an inline stream the caller waits; an error if it is a
    /// worker itself.
    pub fn wait(&self, event: &Event) -> Result<(), Error> {
        if self.inner.executor.is_none() {
            event.block()?;
        }
        self.push(Item::Wait(event.clone()));
        Ok(())
    }

    /// Waits until all work is done, and tells what failed since the last time. An error, too, if called by work on a
    /// stream, which would wait for itself.
    pub fn synchronize(&self) -> Result<(), Error> {
        let mut state = self.inner.lock();
        if state.scheduled {
            executor::forbid_waiting()?;
        }
        while state.scheduled {
            state = self.inner.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn build(name: Name, priority: i32, executor: Option<Arc<Executor>>) -> Stream {
        Stream { inner: Arc::new(Inner { name, priority, executor, state: Mutex::default(), idle: Condvar::new() }) }
    }

    fn push(&self, item: Item) {
        let Some(executor) = &self.inner.executor else {
            self.inner.run_inline(item);
            return;
        };
        let mut state = self.inner.lock();
        state.queue.push_back(item);
        if !std::mem::replace(&mut state.scheduled, true) {
            drop(state);
            executor.ready(self.inner.clone());
        }
    }
}

impl Inner {
    /// Does the next piece of work, and the events around it, whose time is that of the work. True if there is more to
    /// do now.
    fn step(self: &Arc<Self>) -> bool {
        let mut worked = false;
        loop {
            let mut state = self.lock();
            if worked && matches!(state.queue.front(), Some(Item::Work { .. })) {
                return true;
            }
            match state.queue.pop_front() {
                None => {
                    state.scheduled = false;
                    self.idle.notify_all();
                    return false;
                }
                Some(Item::Record(event)) => {
                    let failure = state.failure.clone();
                    drop(state);
                    event.complete(failure);
                }
                Some(Item::Wait(event)) => {
                    drop(state);
                    // If it is still pending, the event has the stream now and makes it ready again.
                    let Some(failure) = event.outcome_or_park(self) else { return false };
                    self.adopt(failure);
                }
                Some(Item::Work { op, run }) => {
                    let skip = state.failure.is_some();
                    drop(state);
                    if !skip {
                        self.work(op, run);
                        worked = true;
                    }
                }
            }
        }
    }

    fn run_inline(self: &Arc<Self>, item: Item) {
        let failed = self.lock().failure.clone();
        match item {
            Item::Record(event) => event.complete(failed),
            Item::Wait(event) => self.adopt(event.failure()),
            Item::Work { op, run } if failed.is_none() => self.work(op, run),
            Item::Work { .. } => {}
        }
    }

    fn work(&self, op: Name, run: Work) {
        let span =
            monitor::enabled().then(|| monitor::span(op.clone(), "stream").with("stream", self.name.to_string()));
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panic_message(&*panic)));
        drop(span);
        if let Err(message) = outcome {
            self.adopt(Some(Failure { stream: self.name.clone(), op, message }));
        }
    }

    /// Takes over a failure, if there is none yet.
    fn adopt(&self, failure: Option<Failure>) {
        let mut state = self.lock();
        state.failure = state.failure.take().or(failure);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let Failure { stream, op, message } = failure;
        Error::Failed { op: op.into_owned(), stream: stream.into_owned(), message }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {:?} of priority {}", self.name(), self.priority())
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "without a message".into()))
}

#[cfg(test)]
mod tests;

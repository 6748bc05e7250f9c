//! Events: moments in a stream that others wait for, and that measure time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::executor::forbid_waiting;
use super::{Failure, Inner};
use crate::Error;

/// A moment in a stream: after all work that was queued when it was recorded. Cloning gives another handle.
#[derive(Clone)]
pub struct Event {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    /// Not there yet; the streams that wait for it.
    Pending(Vec<Arc<Inner>>),
    Done {
        at: Instant,
        failure: Option<Failure>,
    },
}

impl Event {
    /// Whether the moment has come.
    pub fn is_done(&self) -> bool {
        matches!(*self.lock(), State::Done { .. })
    }

    /// Waits for the moment. An error if work before it failed, or if called by work on a stream.
    pub fn synchronize(&self) -> Result<(), Error> {
        self.block()?;
        self.failure().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Time from `earlier` to this, if both have come; zero if it is not the earlier one.
    pub fn elapsed_since(&self, earlier: &Event) -> Option<Duration> {
        let end = self.at()?;
        Some(end.saturating_duration_since(earlier.at()?))
    }

    pub(super) fn pending() -> Event {
        Event { shared: Arc::new(Shared { state: Mutex::new(State::Pending(Vec::new())), done: Condvar::new() }) }
    }

    /// The moment has come: wakes whoever waits.
    pub(super) fn complete(&self, failure: Option<Failure>) {
        let done = State::Done { at: Instant::now(), failure: failure.clone() };
        let before = std::mem::replace(&mut *self.lock(), done);
        self.shared.done.notify_all();
        if let State::Pending(waiting) = before {
            for stream in waiting {
                stream.adopt(failure.clone());
                if let Some(executor) = &stream.executor {
                    executor.ready(stream.clone());
                }
            }
        }
    }

    /// What failed before it, if it is done; else it keeps the stream and makes it ready when it is.
    pub(super) fn outcome_or_park(&self, stream: &Arc<Inner>) -> Option<Option<Failure>> {
        match &mut *self.lock() {
            State::Done { failure, .. } => Some(failure.clone()),
            State::Pending(waiting) => {
                waiting.push(stream.clone());
                None
            }
        }
    }

    pub(super) fn block(&self) -> Result<(), Error> {
        let mut state = self.lock();
        if matches!(*state, State::Pending(_)) {
            forbid_waiting()?;
        }
        while matches!(*state, State::Pending(_)) {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        match &*self.lock() {
            State::Done { failure, .. } => failure.clone(),
            State::Pending(_) => None,
        }
    }

    fn at(&self) -> Option<Instant> {
        match *self.lock() {
            State::Done { at, .. } => Some(at),
            State::Pending(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

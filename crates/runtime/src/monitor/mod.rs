//! Monitor: spans, counters and memory on one timeline.
//!
//! Off, a probe costs one relaxed load. On, each thread writes to a list of its own; [`stop`] collects them all into a
//! [`Recording`], which is written as a Chrome/Perfetto trace ([`Recording::write_trace`]) or condensed into a table
//! ([`Recording::summary`]).
//!
//! ```
//! use windlass_runtime::monitor;
//!
//! monitor::start(monitor::DEFAULT_CAPACITY);
//! {
//!     let _span = monitor::span("load", "files").with("bytes", 4096);
//! }
//! let recording = monitor::stop();
//! assert_eq!(recording.spans.len(), 1);
//! ```

mod summary;
mod tensorboard;
mod trace;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use summary::{Row, Summary};
pub use tensorboard::EventFile;

/// Records that a recording keeps, in all, unless told otherwise: some 100 MB.
pub const DEFAULT_CAPACITY: usize = 1 << 20;

/// A name that is known when the program is built, or made while it runs.
pub type Name = Cow<'static, str>;

/// What an argument of a span may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i64),
    Number(f64),
    Text(Name),
}

/// Something that took a while.
#[derive(Clone, Debug)]
pub struct SpanRecord {
    pub name: Name,
    pub category: &'static str,
    /// Index in [`Recording::threads`].
    pub thread: usize,
    /// Since the start of the recording.
    pub start: Duration,
    pub duration: Duration,
    pub arguments: Vec<(&'static str, Value)>,
}

/// The value of a counter from a moment on. A counter with several series is a stacked plot.
#[derive(Clone, Debug)]
pub struct CounterRecord {
    pub name: Name,
    /// Since the start of the recording.
    pub at: Duration,
    pub series: Vec<(&'static str, f64)>,
}

/// What was recorded, in order of time.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub spans: Vec<SpanRecord>,
    pub counters: Vec<CounterRecord>,
    /// Names of the threads.
    pub threads: Vec<String>,
    /// From start to stop.
    pub elapsed: Duration,
    /// Records that had no place.
    pub dropped: u64,
}

/// Whether the monitor is on.
#[inline(always)]
pub fn enabled() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Turns the monitor on, for at most `capacity` records. What an earlier start recorded and nobody collected is gone.
pub fn start(capacity: usize) {
    let mut hub = hub();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    hub.clear();
    hub.began = Some(Instant::now());
    LEFT.store(capacity, Ordering::Relaxed);
    DROPPED.store(0, Ordering::Relaxed);
    ON.store(true, Ordering::Release);
}

/// Turns the monitor off and hands over what was recorded. Spans that are still open are not in it.
pub fn stop() -> Recording {
    ON.store(false, Ordering::Relaxed);
    let mut hub = hub();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let elapsed = hub.began.take().map_or(Duration::ZERO, |began| began.elapsed());
    let mut recording = Recording { elapsed, dropped: DROPPED.load(Ordering::Relaxed), ..Recording::default() };
    for (thread, lane) in hub.lanes.iter().enumerate() {
        let mut records = lock(&lane.records);
        recording.threads.push(lane.name.clone());
        recording.spans.extend(records.spans.drain(..).map(|span| SpanRecord { thread, ..span }));
        recording.counters.append(&mut records.counters);
    }
    hub.clear();
    // An outer span before an inner one that began at the same moment.
    recording.spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.duration)));
    recording.counters.sort_by_key(|counter| counter.at);
    recording
}

/// Begins a span that ends when it is dropped. Spans of one thread end in the opposite order of their beginnings.
#[inline]
pub fn span(name: impl Into<Name>, category: &'static str) -> Span {
    if !enabled() {
        return Span(None);
    }
    Span(Some(Box::new(Open {
        name: name.into(),
        category,
        arguments: Vec::new(),
        generation: GENERATION.load(Ordering::Relaxed),
        start: Instant::now(),
    })))
}

/// Says that a counter has a value from now on.
#[inline]
pub fn counter(name: impl Into<Name>, value: f64) {
    if enabled() {
        count(name.into(), vec![("value", value)]);
    }
}

/// Says how many bytes of a memory are in use and idle from now on.
#[inline]
pub fn memory(name: impl Into<Name>, used: u64, idle: u64) {
    if enabled() {
        count(name.into(), vec![("used", used as f64), ("idle", idle as f64)]);
    }
}

/// A span under way. Costs nothing if the monitor was off when it began.
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Open>>);

struct Open {
    name: Name,
    category: &'static str,
    arguments: Vec<(&'static str, Value)>,
    generation: u64,
    start: Instant,
}

impl Span {
    /// Adds an argument.
    #[inline]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Whether it is recorded: what only a trace needs is not worked out otherwise.
    #[inline(always)]
    pub fn recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an argument that is known later.
    #[inline]
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.arguments.push((key, value.into()));
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.end();
        }
    }
}

impl Open {
    fn end(self) {
        let end = Instant::now();
        record(self.generation, |records, began| {
            records.spans.push(SpanRecord {
                name: self.name,
                category: self.category,
                thread: 0,
                start: self.start.saturating_duration_since(began),
                duration: end.saturating_duration_since(self.start),
                arguments: self.arguments,
            });
        });
    }
}

#[cold]
fn count(name: Name, series: Vec<(&'static str, f64)>) {
    let now = Instant::now();
    record(GENERATION.load(Ordering::Relaxed), |records, began| {
        records.counters.push(CounterRecord { name, at: now.saturating_duration_since(began), series });
    });
}

static ON: AtomicBool = AtomicBool::new(false);
/// Counts starts and stops: a span belongs to the recording it began in, or to none.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static LEFT: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static HUB: Mutex<Hub> = Mutex::new(Hub { lanes: Vec::new(), began: None });

/// All threads that have recorded something.
struct Hub {
    lanes: Vec<Arc<Lane>>,
    began: Option<Instant>,
}

/// What one thread writes to. The lock is free unless a recording is being collected.
struct Lane {
    name: String,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    generation: u64,
    began: Option<Instant>,
    spans: Vec<SpanRecord>,
    counters: Vec<CounterRecord>,
}

thread_local! {
    static LANE: OnceCell<Arc<Lane>> = const { OnceCell::new() };
}

impl Hub {
    /// Forgets records, and threads that have ended.
    fn clear(&mut self) {
        self.lanes.retain(|lane| Arc::strong_count(lane) > 1);
        self.lanes.iter().for_each(|lane| *lock(&lane.records) = Records::default());
    }
}

/// Lets `write` add a record to this thread's list, if the recording of `generation` is still going on.
fn record(generation: u64, write: impl FnOnce(&mut Records, Instant)) {
    // While a thread ends its list may be gone already; then there is nothing to record to.
    let _ = LANE.try_with(|lane| {
        let lane = lane.get_or_init(Lane::register);
        let mut records = lock(&lane.records);
        if records.generation != generation {
            drop(records);
            let Some(began) = began(generation) else { return };
            records = lock(&lane.records);
            (records.generation, records.began) = (generation, Some(began));
        }
        // Read under the lock of the list: a stop that came before has emptied it, one that comes later will.
        let (true, Some(began)) = (GENERATION.load(Ordering::Relaxed) == generation, records.began) else { return };
        let place = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match place {
            Ok(_) => write(&mut records, began),
            Err(_) => drop(DROPPED.fetch_add(1, Ordering::Relaxed)),
        }
    });
}

/// When the recording of `generation` began, if it is still going on.
fn began(generation: u64) -> Option<Instant> {
    let hub = hub();
    (GENERATION.load(Ordering::Relaxed) == generation).then_some(hub.began).flatten()
}

impl Lane {
    fn register() -> Arc<Lane> {
        let mut hub = hub();
        let thread = std::thread::current();
        let name = thread.name().map_or_else(|| format!("{:?}", thread.id()), String::from);
        let lane = Arc::new(Lane { name, records: Mutex::default() });
        hub.lanes.push(lane.clone());
        lane
    }
}

fn hub() -> MutexGuard<'static, Hub> {
    lock(&HUB)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Value::Number(value as f64), Value::Integer)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        (value as u64).into()
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Integer(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Number(value)
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Value::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value.into())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Tests that turn the monitor on take turns: there is one monitor.
    pub(crate) fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        lock(&TURN)
    }

    fn spans_of<'a>(recording: &'a Recording, category: &str) -> Vec<&'a SpanRecord> {
        recording.spans.iter().filter(|span| span.category == category).collect()
    }

    #[test]
    fn spans_nest_and_carry_arguments() {
        let _turn = turn();
        start(1000);
        {
            let mut outer = span("outer", "nest").with("bytes", 3u64);
            {
                let _inner = span(format!("inner {}", 1), "nest");
                std::thread::sleep(Duration::from_millis(2));
            }
            outer.set("note", "late");
        }
        let recording = stop();
        let [outer, inner] = spans_of(&recording, "nest")[..] else { panic!("{recording:?}") };
        assert_eq!((outer.name.as_ref(), inner.name.as_ref()), ("outer", "inner 1"));
        assert!(outer.start <= inner.start && inner.start + inner.duration <= outer.start + outer.duration);
        assert!(inner.duration >= Duration::from_millis(2) && outer.duration <= recording.elapsed);
        assert_eq!(outer.arguments, [("bytes", Value::Integer(3)), ("note", Value::Text("late".into()))]);
    }

    #[test]
    fn off_records_nothing_and_a_span_belongs_to_one_recording() {
        let _turn = turn();
        drop(span("before", "belong"));
        let never = span("off when it began", "belong");
        start(1000);
        drop(never);
        let open = span("open at the stop", "belong");
        assert!(spans_of(&stop(), "belong").is_empty());
        start(1000);
        drop(open);
        drop(span("whole", "belong"));
        let recording = stop();
        let names: Vec<_> = spans_of(&recording, "belong").iter().map(|s| s.name.clone()).collect();
        assert_eq!(names, ["whole"]);
        assert!(!enabled() && stop().spans.is_empty());
    }

    #[test]
    fn threads_record_side_by_side_and_what_does_not_fit_is_counted() {
        let _turn = turn();
        start(usize::MAX);
        std::thread::scope(|scope| {
            for index in 0..8 {
                let body = move || (0..500).for_each(|n| drop(span("work", "side").with("n", n)));
                std::thread::Builder::new().name(format!("side {index}")).spawn_scoped(scope, body).unwrap();
            }
        });
        let recording = stop();
        let spans = spans_of(&recording, "side");
        assert_eq!((spans.len(), recording.dropped), (4000, 0));
        for index in 0..8 {
            let name = format!("side {index}");
            assert_eq!(spans.iter().filter(|span| recording.threads[span.thread] == name).count(), 500);
        }
        assert!(recording.spans.windows(2).all(|pair| pair[0].start <= pair[1].start));
        start(10);
        (0..25).for_each(|_| drop(span("much", "full")));
        let recording = stop();
        assert!(spans_of(&recording, "full").len() <= 10 && recording.dropped >= 15);
    }

    #[test]
    fn a_start_and_stop_may_come_at_any_moment() {
        let _turn = turn();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        drop(span("busy", "any"));
                        counter("busy", 1.0);
                    }
                });
            }
            let mut seen = 0;
            for _ in 0..200 {
                start(10_000);
                std::thread::yield_now();
                let recording = stop();
                seen += recording.spans.len();
                assert!(recording.spans.iter().all(|s| s.start + s.duration <= recording.elapsed));
            }
            while seen == 0 {
                start(10_000);
                std::thread::sleep(Duration::from_millis(5));
                seen += stop().spans.len();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

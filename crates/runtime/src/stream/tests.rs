use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

type Log = Arc<Mutex<Vec<String>>>;

/// Submits work that writes `entry` to the log.
fn note(stream: &Stream, log: &Log, entry: impl Into<String>) {
    let (log, entry) = (log.clone(), entry.into());
    let write = move || {
        log.lock().unwrap().push(entry);
        Ok::<(), Infallible>(())
    };
    stream.submit("note", write);
}

/// Holds the stream's worker until something is sent.
fn hold(stream: &Stream) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel();
    stream.submit("hold", move || held.recv());
    release
}

fn fail(stream: &Stream, op: &'static str) {
    stream.submit(op, || Err::<(), _>("no such kernel"));
}

#[test]
fn each_stream_keeps_its_order_and_many_run_side_by_side() {
    let executor = Executor::new(3).unwrap();
    let streams: Vec<Stream> = (0..20).map(|n| executor.stream(format!("s{n}"), n % 3)).collect();
    let logs: Vec<Log> = streams.iter().map(|_| Log::default()).collect();
    for n in 0..200 {
        streams.iter().zip(&logs).for_each(|(stream, log)| note(stream, log, n.to_string()));
    }
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for (stream, log) in streams.iter().zip(&logs) {
        stream.synchronize().unwrap();
        assert!(stream.is_idle());
        assert_eq!(*log.lock().unwrap(), expected);
    }
}

#[test]
fn two_streams_do_run_at_the_same_time() {
    let executor = Executor::new(2).unwrap();
    let (a, b) = (executor.stream("a", 0), executor.stream("b", 0));
    let (to_b, from_a) = mpsc::channel::<()>();
    let (to_a, from_b) = mpsc::channel::<()>();
    let ping = move || {
        to_b.send(()).unwrap();
        from_b.recv()
    };
    let pong = move || {
        from_a.recv().unwrap();
        to_a.send(())
    };
    a.submit("ping", ping);
    b.submit("pong", pong);
    a.synchronize().unwrap();
    b.synchronize().unwrap();
}

#[test]
fn events_order_across_streams_without_holding_a_worker() {
    // One worker: a stream that waited on it would stop everything.
    let executor = Executor::new(1).unwrap();
    let log = Log::default();
    let (load, compute) = (executor.stream("load", 0), executor.stream("compute", 9));
    let release = hold(&load);
    note(&load, &log, "loaded");
    let loaded = load.record();
    compute.wait(&loaded).unwrap();
    note(&compute, &log, "computed");
    let computed = compute.record();
    load.wait(&computed).unwrap();
    note(&load, &log, "stored");
    assert!(!loaded.is_done() && computed.elapsed_since(&loaded).is_none());
    release.send(()).unwrap();
    load.synchronize().unwrap();
    assert_eq!(*log.lock().unwrap(), ["loaded", "computed", "stored"]);
    assert!(computed.is_done() && computed.elapsed_since(&loaded).is_some());
    computed.synchronize().unwrap();
}

#[test]
fn events_measure_the_work_between_them() {
    let stream = Stream::new("timed");
    let start = stream.record();
    let sleep = || {
        std::thread::sleep(Duration::from_millis(20));
        Ok::<(), Infallible>(())
    };
    stream.submit("sleep", sleep);
    let end = stream.record();
    end.synchronize().unwrap();
    let elapsed = end.elapsed_since(&start).unwrap();
    assert!(elapsed >= Duration::from_millis(20) && elapsed < Duration::from_secs(10), "{elapsed:?}");
    assert_eq!(start.elapsed_since(&end), Some(Duration::ZERO));
}

#[test]
fn an_error_surfaces_at_the_next_synchronisation_with_the_name_of_the_op() {
    for stream in [Stream::new("main"), Stream::inline("main")] {
        let log = Log::default();
        note(&stream, &log, "before");
        fail(&stream, "matmul");
        note(&stream, &log, "skipped");
        fail(&stream, "softmax");
        let error = stream.synchronize().unwrap_err().to_string();
        assert_eq!(error, "matmul on stream main failed: no such kernel");
        note(&stream, &log, "after");
        stream.synchronize().unwrap();
        assert_eq!(*log.lock().unwrap(), ["before", "after"]);
        stream.submit("broken", || -> Result<(), Infallible> { panic!("index {}", 7) });
        let error = stream.synchronize().unwrap_err().to_string();
        assert_eq!(error, "broken on stream main failed: panic: index 7");
    }
}

#[test]
fn who_waits_for_failed_work_fails_too() {
    let (first, second, third) = (Stream::new("first"), Stream::new("second"), Stream::inline("third"));
    let log = Log::default();
    let release = hold(&first);
    fail(&first, "dequantize");
    let event = first.record();
    second.wait(&event).unwrap();
    note(&second, &log, "on garbage");
    release.send(()).unwrap();
    third.wait(&event).unwrap();
    note(&third, &log, "on garbage");
    let expected = "dequantize on stream first failed: no such kernel";
    for stream in [&first, &second, &third] {
        assert_eq!(stream.synchronize().unwrap_err().to_string(), expected);
        stream.synchronize().unwrap();
    }
    assert_eq!(event.synchronize().unwrap_err().to_string(), expected);
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn higher_priority_goes_first() {
    let executor = Executor::new(1).unwrap();
    let log = Log::default();
    let gate = executor.stream("gate", 0);
    let release = hold(&gate);
    let low = executor.stream("low", -1);
    let high = executor.stream("high", 5);
    (0..3).for_each(|n| note(&low, &log, format!("low {n}")));
    (0..3).for_each(|n| note(&high, &log, format!("high {n}")));
    release.send(()).unwrap();
    low.synchronize().unwrap();
    assert_eq!(*log.lock().unwrap(), ["high 0", "high 1", "high 2", "low 0", "low 1", "low 2"]);
    assert_eq!((high.priority(), high.name()), (5, "high"));
}

#[test]
fn the_current_stream_is_that_of_the_scope() {
    assert_eq!(Stream::current().name(), "inline");
    let side = Stream::new("side");
    side.scope(|| {
        assert_eq!(Stream::current().name(), "side");
        Stream::inline("inner").scope(|| assert_eq!(Stream::current().name(), "inner"));
        assert_eq!(Stream::current().name(), "side");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| side.scope(|| panic!("inside")))).is_err());
    assert_eq!(Stream::current().name(), "inline");
    let done = Arc::new(AtomicBool::new(false));
    let set = done.clone();
    let store = move || {
        set.store(true, Ordering::SeqCst);
        Ok::<(), Infallible>(())
    };
    Stream::current().submit("now", store);
    assert!(done.load(Ordering::SeqCst), "inline work is done when submit returns");
}

#[test]
fn work_that_waits_for_streams_is_an_error_not_a_hang() {
    let executor = Executor::new(1).unwrap();
    let stream = executor.stream("self", 0);
    let (inside, other) = (stream.clone(), executor.stream("other", 0));
    let release = hold(&stream);
    let event = stream.record();
    let wait = move || {
        inside.synchronize()?;
        Ok::<(), Error>(())
    };
    stream.submit("wait for itself", wait);
    other.submit("wait", move || event.synchronize());
    release.send(()).unwrap();
    let error = stream.synchronize().unwrap_err().to_string();
    assert!(error.starts_with("wait for itself on stream self failed: work on a stream cannot wait"), "{error}");
    // The event comes right after the work before it, so that it was done by then.
    other.synchronize().unwrap();
}

#[test]
fn queued_work_is_done_though_every_handle_is_gone() {
    let count = Arc::new(AtomicUsize::new(0));
    let (done, finished) = mpsc::channel();
    {
        let executor = Executor::new(2).unwrap();
        assert_eq!(executor.threads(), 2);
        let stream = executor.stream("left alone", 0);
        let release = hold(&stream);
        for _ in 0..100 {
            let count = count.clone();
            let work = move || {
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<(), Infallible>(())
            };
            stream.submit("count", work);
        }
        stream.submit("done", move || done.send(()));
        release.send(()).unwrap();
    }
    finished.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 100);
}

#[test]
fn the_monitor_shows_the_work_of_streams() {
    let _turn = crate::monitor::tests::turn();
    monitor::start(100_000);
    let stream = Stream::new("shown");
    stream.submit("gelu of the test", || Ok::<(), Infallible>(()));
    stream.synchronize().unwrap();
    let recording = monitor::stop();
    let span = recording.spans.iter().find(|span| span.name == "gelu of the test").unwrap();
    assert_eq!(span.arguments, [("stream", monitor::Value::Text("shown".into()))]);
}

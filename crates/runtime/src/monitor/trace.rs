//! Recordings in the Trace Event Format, which Perfetto and Chrome show.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::{CounterRecord, Recording, SpanRecord, Value};

impl Recording {
    /// Writes the recording as a JSON object of Chrome's Trace Event Format: complete events (`X`) for spans, counter
    /// events (`C`) and the threads' names (`M`). Times are in microseconds with three decimals.
    pub fn write_trace(&self, mut out: impl Write) -> io::Result<()> {
        let process = std::process::id();
        write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"dropped\":{}}},\"traceEvents\":[", self.dropped)?;
        let threads = self.threads.iter().enumerate().map(|(thread, name)| {
            json!({"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": name}})
        });
        let spans = self.spans.iter().map(|span| complete(process, span));
        let counters = self.counters.iter().map(|counter| counter_event(process, counter));
        for (index, event) in threads.chain(spans).chain(counters).enumerate() {
            out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut out, &event)?;
        }
        out.write_all(b"\n]}\n")?;
        out.flush()
    }
}

fn complete(process: u32, span: &SpanRecord) -> Json {
    let arguments: Map<String, Json> =
        span.arguments.iter().map(|(key, value)| (key.to_string(), json(value))).collect();
    json!({
        "ph": "X", "name": span.name, "cat": span.category, "pid": process, "tid": span.thread,
        "ts": microseconds(span.start), "dur": microseconds(span.duration), "args": arguments,
    })
}

fn counter_event(process: u32, counter: &CounterRecord) -> Json {
    let series: Map<String, Json> = counter.series.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    json!({"ph": "C", "name": counter.name, "pid": process, "tid": 0, "ts": microseconds(counter.at), "args": series})
}

fn json(value: &Value) -> Json {
    match value {
        Value::Integer(value) => json!(value),
        // JSON has no infinity: such a number becomes null.
        Value::Number(value) => json!(value),
        Value::Text(value) => json!(value),
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::turn;
    use super::super::{counter, memory, span, start, stop};
    use super::*;

    fn number(event: &Json, key: &str) -> f64 {
        event[key].as_f64().unwrap_or_else(|| panic!("{key} of {event}"))
    }

    /// Checks every event against the rules of the format that viewers rely on.
    fn validate(trace: &Json) -> &Vec<Json> {
        let events = trace["traceEvents"].as_array().unwrap();
        let mut open: Vec<(u64, f64)> = Vec::new();
        for event in events {
            assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
            match event["ph"].as_str().unwrap() {
                "X" => {
                    let (start, duration) = (number(event, "ts"), number(event, "dur"));
                    assert!(start >= 0.0 && duration >= 0.0 && event["cat"].is_string() && event["args"].is_object());
                    let thread = event["tid"].as_u64().unwrap();
                    open.retain(|(t, end)| *t != thread || *end > start);
                    assert!(open.iter().all(|(t, end)| *t != thread || start + duration <= end + 1e-3), "{event}");
                    open.push((thread, start + duration));
                }
                "C" => assert!(
                    number(event, "ts") >= 0.0 && event["args"].as_object().unwrap().values().all(Json::is_number)
                ),
                "M" => assert!(event["name"] == "thread_name" && event["args"]["name"].is_string()),
                other => panic!("{other} is not written"),
            }
        }
        events
    }

    #[test]
    fn a_trace_is_valid_and_holds_what_was_recorded() {
        let _turn = turn();
        start(1000);
        for n in 0..3 {
            let _outer = span("a \"quoted\"\n\u{1} name", "trace").with("loss", f64::NAN).with("n", n);
            let _inner = span("inner", "trace").with("file", String::from("weights.gguf"));
            std::thread::spawn(|| drop(span("elsewhere", "trace"))).join().unwrap();
            counter("tokens", f64::from(n));
            memory("pool", 10, 5);
        }
        let mut text = Vec::new();
        let recording = stop();
        recording.write_trace(&mut text).unwrap();
        let trace: Json = serde_json::from_slice(&text).unwrap();
        let events = validate(&trace);
        let count = |name: &str| events.iter().filter(|event| event["name"] == name).count();
        assert_eq!((count("a \"quoted\"\n\u{1} name"), count("inner"), count("elsewhere")), (3, 3, 3));
        assert_eq!((count("tokens"), count("pool")), (3, 3));
        assert_eq!(count("thread_name"), recording.threads.len());
        let inner = events.iter().find(|event| event["name"] == "inner").unwrap();
        assert_eq!(inner["args"]["file"], "weights.gguf");
        let pool = events.iter().find(|event| event["name"] == "pool").unwrap();
        assert_eq!(pool["args"], json!({"used": 10.0, "idle": 5.0}));
    }

    #[test]
    fn times_are_microseconds() {
        let span = SpanRecord {
            name: "x".into(),
            category: "y",
            thread: 2,
            start: Duration::from_nanos(1_500),
            duration: Duration::from_millis(2),
            arguments: Vec::new(),
        };
        let recording = Recording { spans: vec![span], ..Recording::default() };
        let mut text = Vec::new();
        recording.write_trace(&mut text).unwrap();
        let trace: Json = serde_json::from_slice(&text).unwrap();
        let event = &validate(&trace)[0];
        assert_eq!((number(event, "ts"), number(event, "dur"), event["tid"].as_u64()), (1.5, 2000.0, Some(2)));
    }
}

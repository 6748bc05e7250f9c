//! Recordings as a table: what took how long.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Name, Recording};

/// Spans by name, the longest total first.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub rows: Vec<Row>,
    /// From start to stop of the recording.
    pub elapsed: Duration,
    /// Spans and counters that had no place in the recording.
    pub dropped: u64,
}

/// All spans of one name and category. Spans that lie in others of the same thread count in both.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: Name,
    pub category: &'static str,
    pub count: usize,
    pub total: Duration,
    pub mean: Duration,
    /// Half of the spans took no longer than this.
    pub p50: Duration,
    /// 99 of 100 spans took no longer than this.
    pub p99: Duration,
}

impl Recording {
    /// Condenses the spans into one row per name.
    pub fn summary(&self) -> Summary {
        let mut groups: BTreeMap<(&str, &Name), Vec<Duration>> = BTreeMap::new();
        let mut categories: BTreeMap<&str, &'static str> = BTreeMap::new();
        for span in &self.spans {
            categories.insert(span.category, span.category);
            groups.entry((span.category, &span.name)).or_default().push(span.duration);
        }
        let mut rows: Vec<Row> = groups
            .into_iter()
            .filter_map(|((category, name), durations)| Row::new(name.clone(), categories.get(category)?, durations))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.total));
        Summary { rows, elapsed: self.elapsed, dropped: self.dropped }
    }
}

impl Row {
    fn new(name: Name, category: &'static str, mut durations: Vec<Duration>) -> Option<Row> {
        durations.sort_unstable();
        let (count, total) = (durations.len(), durations.iter().sum::<Duration>());
        // Nearest rank: the smallest value that `percent` of all do not exceed.
        let rank = |percent: usize| durations.get((count * percent).div_ceil(100).max(1) - 1).copied();
        let mean = Duration::from_nanos((total.as_nanos() / count.max(1) as u128) as u64);
        Some(Row { name, category, count, total, mean, p50: rank(50)?, p99: rank(99)? })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = |row: &Row| row.name.chars().count();
        let width = self.rows.iter().map(wide).max().unwrap_or(0).clamp(4, 60);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>10}  {:>6}  {:>10}  {:>10}  {:>10}",
            "name", "count", "total", "share", "mean", "p50", "p99"
        )?;
        for row in &self.rows {
            let share = 100.0 * row.total.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
            let [total, mean, p50, p99] = [row.total, row.mean, row.p50, row.p99].map(time);
            let (name, count) = (&row.name, row.count);
            writeln!(f, "{name:width$}  {count:>9}  {total:>10}  {share:>5.1}%  {mean:>10}  {p50:>10}  {p99:>10}")?;
        }
        if self.dropped > 0 {
            writeln!(f, "{} records had no place and are missing", self.dropped)?;
        }
        Ok(())
    }
}

/// A time in the unit that suits it.
fn time(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.2} us", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::super::SpanRecord;
    use super::*;

    fn span(name: &'static str, microseconds: u64) -> SpanRecord {
        let duration = Duration::from_micros(microseconds);
        SpanRecord {
            name: name.into(),
            category: "op",
            thread: 0,
            start: Duration::ZERO,
            duration,
            arguments: Vec::new(),
        }
    }

    #[test]
    fn rows_count_add_up_and_rank() {
        let mut spans: Vec<SpanRecord> = (1..=200).rev().map(|n| span("matmul", n)).collect();
        spans.push(span("softmax", 7));
        let recording = Recording { spans, elapsed: Duration::from_micros(20_100), dropped: 3, ..Recording::default() };
        let summary = recording.summary();
        let us = Duration::from_micros;
        let [matmul, softmax] = &summary.rows[..] else { panic!("{summary:?}") };
        assert_eq!((matmul.count, matmul.total, matmul.p50, matmul.p99), (200, us(20_100), us(100), us(198)));
        assert_eq!(matmul.mean, Duration::from_nanos(100_500));
        assert_eq!((softmax.count, softmax.p50, softmax.p99), (1, us(7), us(7)));
        let text = summary.to_string();
        assert!(text.contains("matmul         200    20.10 ms  100.0%   100.50 us   100.00 us   198.00 us"), "{text}");
        assert!(text.ends_with("3 records had no place and are missing\n"));
        assert!(Recording::default().summary().rows.is_empty());
    }
}

//! `metrics.jsonl`: one line of JSON for every step.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use windlass_train::StepReport;

use crate::{Code, Error, Result};

/// Longest line that is believed.
const LINE: u64 = 1 << 20;

/// What is kept of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub step: u64,
    pub loss: f64,
    pub eval_loss: Option<f64>,
}

impl From<&StepReport> for Point {
    fn from(report: &StepReport) -> Point {
        Point { step: report.step, loss: report.loss, eval_loss: report.eval_loss }
    }
}

/// The file, locked: two runs that write one folder would mix their lines.
pub struct Metrics {
    path: PathBuf,
    file: File,
    points: Vec<Point>,
}

impl Metrics {
    /// Opens the file, or makes it, and locks it.
    pub fn open(path: PathBuf) -> Result<Metrics> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|e| Error::io(&path, e))?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            let message = format!("another process is training into {}", path.display());
            return Err(Error::new(Code::Failed, message).at(&path).help("wait for it, or choose another --out"));
        }
        Ok(Metrics { path, file, points: Vec::new() })
    }

    /// Drops everything behind the line of `step`, and what is no line of ours. `see` sees what stays.
    pub fn cut_to(&mut self, step: u64, mut see: impl FnMut(&StepReport) -> Result<()>) -> Result<()> {
        let io = |e| Error::io(&self.path, e);
        self.file.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut reader = BufReader::new(&self.file);
        let (mut kept, mut line) = (0, Vec::new());
        self.points.clear();
        loop {
            line.clear();
            let count = (&mut reader).take(LINE).read_until(b'\n', &mut line).map_err(io)?;
            let report = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<StepReport>(line).ok());
            let Some(report) = report.filter(|report| report.step <= step) else { break };
            self.points.push(Point::from(&report));
            see(&report)?;
            kept += count as u64;
        }
        self.file.set_len(kept).and_then(|()| self.file.seek(SeekFrom::Start(kept))).map_err(io)?;
        Ok(())
    }

    /// Appends a step.
    pub fn add(&mut self, report: &StepReport) -> Result<()> {
        let mut line = serde_json::to_vec(report).map_err(|e| Error::new(Code::Failed, e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, e))?;
        self.points.push(Point::from(report));
        Ok(())
    }

    /// The steps in the file.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Another handle of the file, to wait until the disk has it.
    pub fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| Error::io(&self.path, e))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_behind_a_step_and_torn_ones_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = |step: u64| {
            let report = StepReport { step, loss: if step == 2 { f64::NAN } else { 0.5 }, ..StepReport::default() };
            serde_json::to_string(&report).unwrap() + "\n"
        };
        let lines = |range: std::ops::RangeInclusive<u64>| range.map(line).collect::<String>();
        for (text, kept) in [
            (lines(1..=9), lines(1..=5)),
            (lines(1..=3) + "{\"step\":4,\"lo", lines(1..=3)),
            (lines(1..=3) + "words\n" + &lines(4..=5), lines(1..=3)),
            (lines(1..=2) + line(3).trim_end(), lines(1..=2)),
            (String::new(), String::new()),
        ] {
            std::fs::write(&path, text).unwrap();
            let mut metrics = Metrics::open(path.clone()).unwrap();
            assert!(Metrics::open(path.clone()).is_err(), "it is locked");
            metrics.cut_to(5, |_| Ok(())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
            assert_eq!(metrics.points().len(), kept.lines().count());
        }
    }
}

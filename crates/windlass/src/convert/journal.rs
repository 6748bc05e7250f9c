//! Which steps of a conversion are done, kept beside the unfinished target so that a killed run can go on.
//!
//! A step is recorded after its bytes were handed to the operating system. They survive the process but not a crash of
//! the machine, so a journal is believed only within the boot that wrote it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use windlass_runtime::system;

use super::blocks::SUMS;
use crate::{Error, Result};

/// First line of a journal: what it belongs to.
const MAGIC: &str = "windlass-journal-2";

/// Bytes of a record: step, sums of squares.
const RECORD: usize = 4 + 8 * SUMS;

/// The record of one conversion.
pub struct Journal {
    path: PathBuf,
    target: PathBuf,
    file: Mutex<File>,
    /// Sums of the steps that an earlier run finished.
    done: Vec<Option<[u64; SUMS]>>,
}

impl Journal {
    /// Opens the journal at `path`. With `resume`, steps recorded for the same `plan` count as done.
    pub fn open(path: &Path, target: &Path, plan: &str, steps: usize, resume: bool) -> Result<Journal> {
        let head = format!("{MAGIC} {plan} {}\n", system::boot());
        let io = |e| Error::io(path, e);
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        // Two runs that write one target would mix their bytes; the lock goes with the process.
        if file.try_lock().is_err() {
            let message = format!("another process is writing {}", target.display());
            return Err(Error::new(crate::Code::Failed, message)
                .at(target)
                .help("wait for it, or choose another name"));
        }
        let mut done = vec![None; steps];
        let known = if resume { read_records(path, head.as_bytes()) } else { Vec::new() };
        for (step, sums) in &known {
            if let Some(slot) = done.get_mut(*step) {
                *slot = Some(*sums);
            }
        }
        if known.is_empty() {
            file.set_len(0).and_then(|()| file.write_all(head.as_bytes())).map_err(io)?;
        } else {
            // A torn last record would put every later one out of step.
            let whole = (head.len() + known.len() * RECORD) as u64;
            file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(io)?;
        }
        Ok(Journal { path: path.into(), target: target.into(), file: Mutex::new(file), done })
    }

    /// The file or folder that will exist when all is done.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Sums of a step that an earlier run finished.
    pub fn done(&self, step: usize) -> Option<[u64; SUMS]> {
        self.done.get(step).copied().flatten()
    }

    /// Number of steps that an earlier run finished.
    pub fn steps_done(&self) -> usize {
        self.done.iter().flatten().count()
    }

    /// Records a finished step.
    pub fn record(&self, step: usize, sums: [u64; SUMS]) -> Result<()> {
        let mut bytes = [0; RECORD];
        bytes[..4].copy_from_slice(&(step as u32).to_le_bytes());
        for (place, sum) in bytes[4..].chunks_exact_mut(8).zip(sums) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.write_all(&bytes).map_err(|e| {
            let mut error = Error::io(&self.path, e);
            error.resumable = true;
            error
        })
    }

    /// Removes the journal: the target is complete, or given up.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whole records behind the expected head; none if the head is another's. A torn last record is left out.
fn read_records(path: &Path, head: &[u8]) -> Vec<(usize, [u64; SUMS])> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut f| f.read_to_end(&mut bytes));
    let Some(records) = read.ok().and_then(|_| bytes.strip_prefix(head)) else { return Vec::new() };
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let sums = |r: &[u8]| std::array::from_fn(|i| word(&r[4 + 8 * i..][..8]));
    records.chunks_exact(RECORD).map(|r| (word(&r[..4]) as usize, sums(r))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_believed_for_its_own_plan_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let open = |plan: &str, resume| Journal::open(&path, Path::new("t"), plan, 10, resume).unwrap();
        let first = open("a", false);
        assert!(Journal::open(&path, Path::new("t"), "a", 10, true).is_err(), "the first run still has it");
        first.record(3, [7, 8, 9]).unwrap();
        drop(first);
        let again = open("a", true);
        assert_eq!((again.done(3), again.done(4), again.steps_done()), (Some([7, 8, 9]), None, 1));
        again.record(4, [1, 2, 3]).unwrap();
        drop(again);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        assert_eq!(open("a", true).steps_done(), 2);
        assert_eq!(open("b", true).steps_done(), 0);
        assert_eq!(open("a", true).steps_done(), 0, "the journal of plan b replaced it");
    }

    #[test]
    fn without_resume_it_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        Journal::open(&path, Path::new("t"), "a", 10, false).unwrap().record(3, [0, 0, 0]).unwrap();
        assert_eq!(Journal::open(&path, Path::new("t"), "a", 10, false).unwrap().steps_done(), 0);
    }
}

//! Event files, which TensorBoard reads: scalars over the steps of a training.
//!
//! A file is a row of records: length, its checksum, a message of protocol buffers (`Event`), its checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one event file. What was written is in the file after [`EventFile::flush`], or when it is dropped.
pub struct EventFile {
    out: BufWriter<File>,
    path: PathBuf,
}

impl EventFile {
    /// Longest tag, in bytes.
    pub const TAG_BYTES: usize = 1024;

    /// Makes a new file in `folder`, which must be there. Several files in one folder are one run of several parts.
    pub fn create(folder: &Path) -> io::Result<EventFile> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for part in 0..1000 {
            let name = format!("events.out.tfevents.{seconds:010}.windlass.{}.{part}", std::process::id());
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut events = EventFile { out: BufWriter::new(file), path };
                    events.out.write_all(&record(&version(now())))?;
                    return Ok(events);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that `tag` has this value at `step`, now.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> io::Result<()> {
        if tag.len() > Self::TAG_BYTES {
            let message = format!("a tag has at most {} bytes, found {}", Self::TAG_BYTES, tag.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        self.out.write_all(&record(&scalar(now(), tag, step, value)))
    }

    /// Hands everything to the operating system, so that a reader sees it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `Event { wall_time = 1, file_version = 3 }`: the first of each file.
fn version(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, time);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }`.
fn scalar(time: f64, tag: &str, step: u64, number: f32) -> Vec<u8> {
    let mut value = Vec::new();
    bytes(&mut value, 1, tag.as_bytes());
    value.push(2 << 3 | 5);
    value.extend(number.to_le_bytes());
    let mut summary = Vec::new();
    bytes(&mut summary, 1, &value);
    let mut event = Vec::new();
    double(&mut event, 1, time);
    if step != 0 {
        event.push(2 << 3);
        varint(&mut event, step);
    }
    bytes(&mut event, 5, &summary);
    event
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked_crc(&length).to_le_bytes(), message, &masked_crc(message).to_le_bytes()];
    parts.concat()
}

/// The checksum as these files store it: turned and shifted, so that a checksum of checksums is still one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli, RFC 3720).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0x82F6_3B78);
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    }

    /// Written by TensorBoard's own classes: see the script beside it.
    #[test]
    fn records_equal_those_of_tensorboard() {
        let mut ours = record(&version(1000.5));
        ours.extend(record(&scalar(1001.25, "loss", 0, 2.5)));
        ours.extend(record(&scalar(1002.0, "train/learning rate \u{3b7}", 300, -1e-5)));
        ours.extend(record(&scalar(1003.0, "loss", 1 << 40, f32::INFINITY)));
        assert_eq!(ours, include_bytes!("../../tests/golden/scalars.tfevents"));
    }

    #[test]
    fn a_file_is_complete_after_a_flush_and_two_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = EventFile::create(folder.path()).unwrap();
        let second = EventFile::create(folder.path()).unwrap();
        assert_ne!(first.path(), second.path());
        first.scalar("loss", 1, 0.5).unwrap();
        assert!(first.scalar(&"x".repeat(2000), 1, 0.5).is_err());
        first.flush().unwrap();
        let data = std::fs::read(first.path()).unwrap();
        let (mut at, mut lengths) = (0, Vec::new());
        while at < data.len() {
            let length = u64::from_le_bytes(data[at..at + 8].try_into().unwrap()) as usize;
            let message = &data[at + 12..at + 12 + length];
            assert_eq!(data[at + 12 + length..][..4], masked_crc(message).to_le_bytes());
            lengths.push(length);
            at += 16 + length;
        }
        assert_eq!(lengths, [24, 26]);
        assert!(EventFile::create(Path::new("/nowhere/at all")).is_err());
    }
}

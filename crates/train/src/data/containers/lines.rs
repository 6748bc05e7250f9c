//! Bounded lines of a file.

use std::io::{BufRead, BufReader, Read};

use super::{Bad, Input, Place};
use crate::data::bounds::ROW_BYTES;

/// Lines one after the other, without the ends that they have.
pub struct Lines {
    reader: BufReader<Box<dyn Input>>,
    bytes: Vec<u8>,
    line: u64,
}

impl Lines {
    pub fn new(input: Box<dyn Input>) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, input), bytes: Vec::new(), line: 0 }
    }

    /// The next line and its number, from 1 on. One that is too long is told, and what follows it is still read.
    pub fn next(&mut self) -> Option<Result<(u64, &[u8]), Bad>> {
        self.bytes.clear();
        self.line += 1;
        let place = Place::Line(self.line);
        let limit = ROW_BYTES as u64 + 1;
        match (&mut self.reader).take(limit).read_until(b'\n', &mut self.bytes) {
            Err(error) => return Some(Err(Bad { place, message: error.to_string(), last: true })),
            Ok(0) => return None,
            Ok(_) => {}
        }
        if self.bytes.len() > ROW_BYTES {
            let last = self.reader.skip_until(b'\n').is_err();
            let message = format!("is longer than {ROW_BYTES} bytes");
            return Some(Err(Bad { place, message, last }));
        }
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        Some(Ok((self.line, line.strip_suffix(b"\r").unwrap_or(line))))
    }
}

//! Plain text: one long sequence, which is cut where the context ends.

use windlass_tensor::Limits;

use super::lines::Lines;
use super::{Bad, Container, Head, Input, Place, Row, Rows, Stream, Wanted};
use crate::data::value::{Object, Value};

/// Bytes that are tokenized together, at least: pieces end at the next empty line, or at twice as many at any line.
const PIECE: usize = 1 << 20;

/// The container.
pub struct Text;

impl Container for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn detect(&self, head: &Head) -> bool {
        let valid = match std::str::from_utf8(head.bytes) {
            Ok(_) => true,
            // A character that the end of what was read cuts in two.
            Err(error) => error.error_len().is_none() && !head.whole,
        };
        let odd = |b: &u8| *b < 0x20 && !matches!(b, b'\n' | b'\r' | b'\t' | 0x0c | 0x1b);
        valid && !head.bytes.iter().any(odd) && !matches!(head.extension, "json" | "jsonl" | "parquet" | "npy")
    }

    fn open(&self, input: Box<dyn Input>, _: &Wanted, _: &Limits) -> Result<Box<dyn Rows>, String> {
        Ok(Box::new(Pieces { lines: Lines::new(input), held: None, line: 1, ended: false }))
    }
}

struct Pieces {
    lines: Lines,
    /// The next piece, which is given when it is known whether more follows.
    held: Option<Row>,
    line: u64,
    ended: bool,
}

impl Rows for Pieces {
    fn next(&mut self) -> Option<Result<Row, Bad>> {
        while !self.ended {
            let piece = self.piece();
            let Some(piece) = piece.transpose() else {
                self.ended = true;
                break;
            };
            match piece {
                Err(bad) => return Some(Err(bad)),
                Ok(row) => {
                    if let Some(before) = self.held.replace(row) {
                        return Some(Ok(before));
                    }
                }
            }
        }
        self.held.take().map(|row| Ok(Row { stream: Some(Stream::Ends), ..row }))
    }
}

impl Pieces {
    fn piece(&mut self) -> Result<Option<Row>, Bad> {
        let place = Place::Line(self.line);
        let mut text = String::new();
        while text.len() < PIECE || (text.len() < 2 * PIECE && !text.ends_with("\n\n")) {
            let Some(line) = self.lines.next() else { break };
            let (number, line) = line?;
            self.line = number + 1;
            let wrong = Bad { place: Place::Line(number), message: "is not UTF-8".into(), last: false };
            text.push_str(std::str::from_utf8(line).map_err(|_| wrong)?);
            text.push('\n');
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        let columns = Object(vec![("text".into(), Value::Text(text))]);
        Ok(Some(Row { place, columns, stream: Some(Stream::Goes) }))
    }
}

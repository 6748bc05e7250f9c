//! JSON lines: an object in each line; empty lines are passed over.

use windlass_tensor::Limits;

use super::lines::Lines;
use super::{Bad, Container, Head, Input, Place, Row, Rows, Wanted};
use crate::data::value::Value;

/// The container.
pub struct Jsonl;

impl Container for Jsonl {
    fn name(&self) -> &'static str {
        "JSON lines"
    }

    fn detect(&self, head: &Head) -> bool {
        let Some(rest) = head.trimmed().strip_prefix(b"{") else { return false };
        matches!(rest.trim_ascii_start().first(), Some(b'"' | b'}') | None)
    }

    fn open(&self, input: Box<dyn Input>, _: &Wanted, limits: &Limits) -> Result<Box<dyn Rows>, String> {
        Ok(Box::new(Reader { lines: Lines::new(input), nesting: limits.nesting }))
    }
}

struct Reader {
    lines: Lines,
    nesting: usize,
}

impl Rows for Reader {
    fn next(&mut self) -> Option<Result<Row, Bad>> {
        loop {
            let (number, line) = match self.lines.next()? {
                Ok(line) => line,
                Err(bad) => return Some(Err(bad)),
            };
            if !line.trim_ascii().is_empty() {
                return Some(row(line, Place::Line(number), self.nesting));
            }
        }
    }
}

/// One object as a row.
pub fn row(text: &[u8], place: Place, nesting: usize) -> Result<Row, Bad> {
    let bad = |message: String| Bad { place, message, last: false };
    match Value::parse(text, nesting).map_err(bad)? {
        Value::Object(columns) => Ok(Row { place, columns, stream: None }),
        other => Err(bad(format!("is {}, expected an object", other.kind()))),
    }
}

//! JSON: an array of objects, or an object whose `data` is one. Rows are cut out one by one, so memory is that of a row.

use std::io::{BufRead, BufReader};

use windlass_tensor::Limits;

use super::{Bad, Container, Head, Input, Place, Row, Rows, Wanted, jsonl};
use crate::data::bounds::ROW_BYTES;

/// The name of the rows in an object.
const DATA: &str = "data";

/// The container.
pub struct Json;

impl Container for Json {
    fn name(&self) -> &'static str {
        "JSON"
    }

    fn detect(&self, head: &Head) -> bool {
        match head.trimmed().first() {
            Some(b'[') => {
                let next = head.trimmed()[1..].trim_ascii_start().first();
                matches!(next, Some(b'{' | b']')) || (next.is_none() && head.whole)
            }
            Some(b'{') => has_data(head),
            _ => false,
        }
    }

    fn open(&self, input: Box<dyn Input>, _: &Wanted, limits: &Limits) -> Result<Box<dyn Rows>, String> {
        let mut scan = Scan { reader: BufReader::with_capacity(1 << 16, input) };
        let inside = match scan.next_solid()? {
            Some(b'[') => false,
            Some(b'{') => {
                scan.enter_data()?;
                true
            }
            _ => return Err("is not an array of JSON".into()),
        };
        Ok(Box::new(Reader { scan, nesting: limits.nesting, row: 0, inside, ended: false }))
    }
}

/// Whether the object at the beginning has rows in its `data`. Lists of texts under this name are columns of JSON lines.
fn has_data(head: &Head) -> bool {
    let bytes = head.bytes.to_vec();
    let mut scan = Scan { reader: BufReader::new(Box::new(std::io::Cursor::new(bytes)) as Box<dyn Input>) };
    let entered = scan.next_solid().and_then(|_| scan.enter_data());
    entered.is_ok() && matches!(scan.next_solid(), Ok(Some(b'{' | b']')))
}

struct Reader {
    scan: Scan,
    nesting: usize,
    row: u64,
    /// Whether the array is inside of an object.
    inside: bool,
    ended: bool,
}

impl Rows for Reader {
    fn next(&mut self) -> Option<Result<Row, Bad>> {
        if self.ended {
            return None;
        }
        let place = Place::Row(self.row + 1);
        let found = self.element();
        if !matches!(found, Ok(Some(_))) {
            self.ended = true;
        }
        match found {
            Ok(Some(text)) => {
                self.row += 1;
                Some(jsonl::row(&text, place, self.nesting))
            }
            Ok(None) => None,
            Err(message) => Some(Err(Bad { place, message, last: true })),
        }
    }
}

impl Reader {
    /// The text of the next element; `None` behind the last.
    fn element(&mut self) -> Result<Option<Vec<u8>>, String> {
        let first = match (self.scan.next_solid()?, self.row) {
            (Some(b']'), 0) => return self.end(),
            (Some(byte), 0) => byte,
            (Some(b','), _) => match self.scan.next_solid()? {
                Some(b']') => return Err("expected a row behind the comma".into()),
                Some(byte) => byte,
                None => return Err("the array ends inside".into()),
            },
            (Some(b']'), _) => return self.end(),
            (Some(_), _) => return Err("expected , or ] behind the row before".into()),
            (None, _) => return Err("the array is not closed: the file was cut".into()),
        };
        let mut text = Vec::new();
        self.scan.value(first, Some(&mut text))?;
        Ok(Some(text))
    }

    fn end(&mut self) -> Result<Option<Vec<u8>>, String> {
        if !self.inside && self.scan.next_solid()?.is_some() {
            return Err("something follows the array".into());
        }
        Ok(None)
    }
}

/// JSON, byte by byte: only as much of it as tells where a value ends.
struct Scan {
    reader: BufReader<Box<dyn Input>>,
}

impl Scan {
    fn byte(&mut self) -> Result<Option<u8>, String> {
        let buffer = self.reader.fill_buf().map_err(|error| error.to_string())?;
        let byte = buffer.first().copied();
        self.reader.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    fn peek(&mut self) -> Result<Option<u8>, String> {
        Ok(self.reader.fill_buf().map_err(|error| error.to_string())?.first().copied())
    }

    /// The next byte that is not white space.
    fn next_solid(&mut self) -> Result<Option<u8>, String> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                other => return Ok(other),
            }
        }
    }

    /// Goes on to the first element of the array `data`, inside of an object.
    fn enter_data(&mut self) -> Result<(), String> {
        loop {
            let Some(b'"') = self.next_solid()? else { return Err(format!("has no array called {DATA:?}")) };
            let mut name = Vec::new();
            self.string(Some(&mut name))?;
            let Some(b':') = self.next_solid()? else { return Err("expected : behind a name".into()) };
            let first = self.next_solid()?.ok_or("the object ends inside")?;
            if name == DATA.as_bytes() && first == b'[' {
                return Ok(());
            }
            self.value(first, None)?;
            let Some(b',') = self.next_solid()? else { return Err(format!("has no array called {DATA:?}")) };
        }
    }

    /// The value that begins with `first`, to its end.
    fn value(&mut self, first: u8, mut text: Option<&mut Vec<u8>>) -> Result<(), String> {
        keep(&mut text, first)?;
        match first {
            b'"' => {
                self.string(text.as_deref_mut())?;
                return keep(&mut text, b'"');
            }
            b'{' | b'[' => {}
            _ => {
                while let Some(byte) =
                    self.peek()?.filter(|b| !matches!(b, b',' | b']' | b'}') && !b.is_ascii_whitespace())
                {
                    keep(&mut text, byte)?;
                    self.reader.consume(1);
                }
                return Ok(());
            }
        }
        let mut depth = 1usize;
        while depth > 0 {
            let byte = self.byte()?.ok_or("the file ends inside of a row: it was cut")?;
            keep(&mut text, byte)?;
            match byte {
                b'"' => {
                    self.string(text.as_deref_mut())?;
                    keep(&mut text, b'"')?;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// What stands before the closing quote, escapes as they are.
    fn string(&mut self, mut text: Option<&mut Vec<u8>>) -> Result<(), String> {
        loop {
            let byte = self.byte()?.ok_or("the file ends inside of a text: it was cut")?;
            if byte == b'"' {
                return Ok(());
            }
            keep(&mut text, byte)?;
            if byte == b'\\' {
                let escaped = self.byte()?.ok_or("the file ends inside of a text: it was cut")?;
                keep(&mut text, escaped)?;
            }
        }
    }
}

fn keep(text: &mut Option<&mut Vec<u8>>, byte: u8) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    if text.len() >= ROW_BYTES {
        return Err(format!("is longer than {ROW_BYTES} bytes"));
    }
    text.push(byte);
    Ok(())
}

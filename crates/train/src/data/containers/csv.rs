//! Tables of text with a header: CSV, and the same with tabs or semicolons (RFC 4180; empty cells are null).

use std::io::Read;

use csv::{ByteRecord, ReaderBuilder};
use windlass_tensor::Limits;

use super::{Bad, Container, Head, Input, Place, Row, Rows, Wanted};
use crate::data::bounds::{COLUMNS, ROW_BYTES};
use crate::data::value::{Object, Value};

/// The container.
pub struct Csv;

impl Container for Csv {
    fn name(&self) -> &'static str {
        "CSV"
    }

    fn detect(&self, head: &Head) -> bool {
        let text = std::str::from_utf8(head.bytes).or_else(|e| std::str::from_utf8(&head.bytes[..e.valid_up_to()]));
        if text.is_ok_and(str::is_empty) {
            return false;
        }
        let named = matches!(head.extension, "csv" | "tsv");
        named
            || separators(head.bytes)
                .into_iter()
                .any(|by| header(head.bytes, by).is_some_and(|h| (head.wanted.fits)(&h)))
    }

    fn open(&self, mut input: Box<dyn Input>, _: &Wanted, _: &Limits) -> Result<Box<dyn Rows>, String> {
        let start = input.stream_position().map_err(|e| e.to_string())?;
        let mut head = Vec::new();
        (&mut input).take(crate::data::bounds::HEAD_BYTES as u64).read_to_end(&mut head).map_err(|e| e.to_string())?;
        let by = separators(&head)[0];
        input.seek(std::io::SeekFrom::Start(start)).map_err(|e| e.to_string())?;
        let bounded = Bounded { input, left: ROW_BYTES };
        let mut reader = ReaderBuilder::new().delimiter(by).has_headers(false).flexible(true).from_reader(bounded);
        let mut first = ByteRecord::new();
        reader.read_byte_record(&mut first).map_err(|e| e.to_string())?;
        let names = names(&first).ok_or("has no header: its first line must name the columns")?;
        if names.len() > COLUMNS {
            return Err(format!("has {} columns, the limit is {COLUMNS}", names.len()));
        }
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(format!("has two columns called {:?}", twice.1));
        }
        Ok(Box::new(Table { reader, names, record: ByteRecord::new(), line: 2 }))
    }
}

/// Separators, the one that is most in the first line first.
fn separators(bytes: &[u8]) -> [u8; 3] {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let mut all = [b',', b'\t', b';'];
    all.sort_by_key(|by| std::cmp::Reverse(line.iter().filter(|b| *b == by).count()));
    all
}

fn header(bytes: &[u8], by: u8) -> Option<Vec<String>> {
    let line = bytes.split(|b| *b == b'\n').next()?;
    let mut record = ByteRecord::new();
    ReaderBuilder::new().delimiter(by).has_headers(false).from_reader(line).read_byte_record(&mut record).ok()?;
    names(&record)
}

fn names(record: &ByteRecord) -> Option<Vec<String>> {
    let name = |cell: &[u8]| std::str::from_utf8(cell).ok().map(|name| name.trim().to_owned());
    let names: Vec<String> = record.iter().map(name).collect::<Option<_>>()?;
    (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(names)
}

/// Gives no more than `left` bytes, which the table sets anew for each row: a quote that is never closed ends there.
struct Bounded {
    input: Box<dyn Input>,
    left: usize,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other(format!("is longer than {ROW_BYTES} bytes")));
        }
        let most = self.left.min(buffer.len());
        let read = self.input.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

struct Table {
    reader: csv::Reader<Bounded>,
    names: Vec<String>,
    record: ByteRecord,
    /// Where the next row begins.
    line: u64,
}

impl Rows for Table {
    fn next(&mut self) -> Option<Result<Row, Bad>> {
        self.reader.get_mut().left = ROW_BYTES;
        let place = Place::Line(self.line);
        let bad = |message: String, last: bool| Some(Err(Bad { place, message, last }));
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                self.names.clear();
                return bad(error.to_string(), true);
            }
        }
        let place = Place::Line(self.record.position().map_or(self.line, |at| at.line()));
        self.line = self.reader.position().line();
        if self.record.len() != self.names.len() {
            let message = format!("has {} cells, the header has {}", self.record.len(), self.names.len());
            return Some(Err(Bad { place, message, last: false }));
        }
        let mut columns = Object::default();
        for (name, cell) in self.names.iter().zip(&self.record) {
            let Ok(cell) = std::str::from_utf8(cell) else {
                return Some(Err(Bad { place, message: format!("{name:?} is not UTF-8"), last: false }));
            };
            let value = if cell.is_empty() { Value::Null } else { Value::Text(cell.to_owned()) };
            columns.0.push((name.clone(), value));
        }
        Some(Ok(Row { place, columns, stream: None }))
    }
}

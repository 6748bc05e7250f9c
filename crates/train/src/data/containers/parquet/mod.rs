//! Parquet: columns of text and numbers, lists of them, and lists of flat objects.
//!
//! The `parquet` library decodes values. What it would believe is bounded before: the footer and the headers of pages are
//! walked here, pages are unpacked here, and values are taken row by row.
//!
//! <https://parquet.apache.org/docs/file-format/>

mod leaf;
mod pages;
mod thrift;

use std::io::{Read, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use parquet::basic::Repetition;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::Type;
use windlass_tensor::Limits;

use super::{Bad, Container, Head, Input, Place, Row, Rows, Wanted};
use crate::data::bounds::{COLUMNS, ROW_BYTES};
use crate::data::value::{Object, Value};
use leaf::{Cell, Leaf, Reader, guarded, objects};
use pages::{Pages, Shared};
use thrift::{Walk, Wrong};

/// Bytes of unpacked pages, in all columns that are read.
const PAGES_BYTES: usize = 1 << 30;
/// Bytes of one unpacked page.
const PAGE_BYTES: usize = 256 << 20;

/// The container.
pub struct Parquet;

impl Container for Parquet {
    fn name(&self) -> &'static str {
        "Parquet"
    }

    fn detect(&self, head: &Head) -> bool {
        head.bytes.starts_with(b"PAR1")
    }

    fn open(&self, mut input: Box<dyn Input>, wanted: &Wanted, limits: &Limits) -> Result<Box<dyn Rows>, String> {
        let (metadata, length) = footer(&mut *input, limits)?;
        let schema = metadata.file_metadata().schema_descr();
        let mut columns = Vec::new();
        for field in schema.root_schema().get_fields() {
            if wanted.names.iter().any(|name| name == field.name()) {
                columns.push(column(&metadata, field.name())?);
            }
        }
        if columns.is_empty() {
            let names: Vec<&str> =
                schema.root_schema().get_fields().iter().map(|field| field.name()).take(20).collect();
            return Err(format!("has the columns {}, of which none is known", names.join(", ")));
        }
        let leaves = columns.iter().map(|column| column.leaves.len()).sum::<usize>();
        let shared = Shared {
            input: Mutex::new(input),
            served: AtomicU64::new(0),
            page_bytes: PAGE_BYTES.min(PAGES_BYTES / leaves),
        };
        let (shared, readers) = (Arc::new(shared), Vec::new());
        Ok(Box::new(Table { shared, metadata, length, columns, group: 0, readers, left: 0, row: 0, ended: false }))
    }
}

/// Reads the footer, after its sizes were checked.
fn footer(input: &mut dyn Input, limits: &Limits) -> Result<(ParquetMetaData, u64), String> {
    let io = |error: std::io::Error| error.to_string();
    let length = input.seek(SeekFrom::End(0)).map_err(io)?;
    let cut = || "the end of the file is missing: it was cut".to_string();
    let tail_at = length.checked_sub(8).filter(|at| *at >= 4).ok_or_else(cut)?;
    let mut tail = [0; 8];
    input.seek(SeekFrom::Start(tail_at)).map_err(io)?;
    input.read_exact(&mut tail).map_err(io)?;
    let [a, b, c, d, magic @ ..] = tail;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err("is encrypted".into()),
        _ => return Err(cut()),
    }
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    if size > limits.header_bytes {
        return Err(format!("its footer has {size} bytes, the limit is {}", limits.header_bytes));
    }
    let start = tail_at.checked_sub(size).filter(|at| *at >= 4).ok_or("its footer is longer than the file")?;
    input.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut bytes = Vec::new();
    input.take(size).read_to_end(&mut bytes).map_err(io)?;
    match (Walk { bytes: &bytes, at: 0 }).fields() {
        Ok(_) => {}
        Err(Wrong::Short) => return Err("its footer is cut".into()),
        Err(Wrong::Bad(message)) => return Err(format!("its footer is damaged: {message}")),
    }
    let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&bytes))?;
    let metadata = metadata.map_err(|error| format!("its footer is damaged: {error}"))?;
    let count = metadata.file_metadata().schema_descr().num_columns();
    if count > COLUMNS {
        return Err(format!("has {count} columns, the limit is {COLUMNS}"));
    }
    Ok((metadata, start))
}

/// A column as a row has it.
struct Column {
    name: Arc<str>,
    leaves: Vec<(Arc<str>, Leaf)>,
    /// Whether the items of its list are objects.
    objects: bool,
}

fn column(metadata: &ParquetMetaData, name: &str) -> Result<Column, String> {
    let schema = metadata.file_metadata().schema_descr();
    let (mut leaves, mut objects) = (Vec::new(), false);
    for (index, descr) in schema.columns().iter().enumerate() {
        let parts = descr.path().parts();
        if parts.first().is_none_or(|first| first != name) {
            continue;
        }
        let refuse =
            |what: &str| format!("its column {:?} {what}, which is not read: save it as JSON lines", parts.join("."));
        let shape = Shape::of(schema.root_schema(), parts).ok_or_else(|| refuse("is not described"))?;
        match shape {
            Shape { lists: 0, depth: 1, .. } => {}
            Shape { lists: 0, .. } => return Err(refuse("is an object")),
            Shape { lists: 1, inner: 0, .. } => {}
            Shape { lists: 1, inner: 1, .. } => objects = true,
            Shape { lists: 1, .. } => return Err(refuse("is an object within an object")),
            _ => return Err(refuse("is a list within a list")),
        }
        let item = (shape.lists == 1).then_some(shape.item);
        let last = parts.last().map_or("", String::as_str);
        leaves.push((last.into(), Leaf { index, descr: descr.clone(), item }));
    }
    if leaves.is_empty() {
        return Err(format!("its column {name:?} has no values"));
    }
    Ok(Column { name: name.into(), leaves, objects })
}

/// The way from the root to a column.
struct Shape {
    /// Steps in all.
    depth: usize,
    lists: usize,
    /// The level from which on the list has an item.
    item: i16,
    /// Names inside of an item.
    inner: usize,
}

impl Shape {
    fn of(root: &Type, parts: &[String]) -> Option<Shape> {
        let mut shape = Shape { depth: parts.len(), lists: 0, item: 0, inner: 0 };
        let (mut at, mut level) = (root, 0i16);
        let mut wraps = false;
        for part in parts {
            at = at.get_fields().iter().find(|field| field.name() == part)?;
            let repetition = at.get_basic_info().repetition();
            level = level.checked_add(i16::from(repetition != Repetition::REQUIRED))?;
            if repetition == Repetition::REPEATED {
                (shape.lists, shape.item, shape.inner) = (shape.lists + 1, level, 0);
                // `list.element`: the one field of the repeated group is the item itself.
                wraps = at.is_group() && at.get_fields().len() == 1;
            } else if shape.lists > 0 {
                shape.inner += usize::from(!wraps);
                wraps = false;
            }
        }
        Some(shape)
    }
}

struct Table {
    shared: Arc<Shared>,
    metadata: ParquetMetaData,
    /// Of what lies before the footer.
    length: u64,
    columns: Vec<Column>,
    /// The next group of rows.
    group: usize,
    /// Of the columns, leaf by leaf.
    readers: Vec<Vec<Reader>>,
    /// Rows of the group that were not given.
    left: u64,
    row: u64,
    ended: bool,
}

impl Rows for Table {
    fn next(&mut self) -> Option<Result<Row, Bad>> {
        while self.left == 0 && !self.ended {
            if self.group == self.metadata.num_row_groups() {
                return None;
            }
            if let Err(message) = self.enter() {
                return self.end(message);
            }
        }
        if self.ended {
            return None;
        }
        self.left -= 1;
        match self.columns() {
            Ok(columns) => {
                self.row += 1;
                self.shared.served.store(0, Ordering::Relaxed);
                Some(Ok(Row { place: Place::Row(self.row), columns, stream: None }))
            }
            Err(message) => self.end(message),
        }
    }
}

impl Table {
    fn end(&mut self, message: String) -> Option<Result<Row, Bad>> {
        self.ended = true;
        Some(Err(Bad { place: Place::Row(self.row + 1), message, last: true }))
    }

    /// Begins the next group of rows.
    fn enter(&mut self) -> Result<(), String> {
        let group = self.metadata.row_group(self.group);
        self.group += 1;
        self.readers.clear();
        self.left = u64::try_from(group.num_rows()).map_err(|_| "a group has a negative number of rows")?;
        for column in &self.columns {
            let mut readers = Vec::new();
            for (_, leaf) in &column.leaves {
                let chunk = group.columns().get(leaf.index).ok_or("a group of rows lacks a column")?;
                let number = |value: i64| u64::try_from(value).map_err(|_| "a column has a negative size or place");
                let data = number(chunk.data_page_offset())?;
                let at = match chunk.dictionary_page_offset() {
                    Some(offset) if offset > 0 => number(offset)?.min(data),
                    _ => data,
                };
                let end = at.checked_add(number(chunk.compressed_size())?).filter(|end| *end <= self.length);
                let end = end.ok_or_else(|| format!("its column {:?} lies outside of the file", column.name))?;
                let pages = Pages {
                    shared: self.shared.clone(),
                    compression: chunk.compression(),
                    physical: leaf.descr.physical_type(),
                    at,
                    end,
                    left: number(chunk.num_values())?,
                };
                readers.push(Reader::new(leaf, pages)?);
            }
            self.readers.push(readers);
        }
        Ok(())
    }

    /// The cells of the next row.
    fn columns(&mut self) -> Result<Object, String> {
        let (mut row, mut bytes) = (Object::default(), ROW_BYTES);
        for (column, readers) in self.columns.iter().zip(&mut self.readers) {
            let named = |message: String| format!("column {:?} {message}", column.name);
            let mut cells = Vec::with_capacity(readers.len());
            for ((name, _), reader) in column.leaves.iter().zip(readers) {
                cells.push((name.clone(), reader.next(&mut bytes).map_err(named)?));
            }
            let value = if column.objects {
                objects(cells).map_err(named)?
            } else {
                match cells.into_iter().next() {
                    Some((_, Cell::One(value))) => value,
                    Some((_, Cell::Ints(ints))) => Value::Ints(ints),
                    Some((_, Cell::Items(items))) => Value::List(items),
                    None => Value::Null,
                }
            };
            row.0.push((column.name.to_string(), value));
        }
        Ok(row)
    }
}

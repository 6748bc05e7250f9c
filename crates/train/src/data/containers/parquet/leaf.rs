//! One column of values, taken apart into rows by its levels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::schema::types::ColumnDescPtr;

use super::pages::Pages;
use crate::data::bounds::ROW_BYTES;
use crate::data::value::Value;

/// Rows that are decoded together.
const BATCH: usize = 64;

/// Where a column is, and what its levels mean.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Among all columns of the file.
    pub index: usize,
    pub descr: ColumnDescPtr,
    /// The level from which on an item of the list is there; `None` without a list.
    pub item: Option<i16>,
}

/// What a row has in a column.
pub enum Cell {
    One(Value),
    Items(Vec<Value>),
    Ints(Vec<i64>),
}

/// Reads the rows of a group.
pub struct Reader {
    leaf: Leaf,
    column: ColumnReader,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    values: Values,
    /// Levels and values that were given.
    level: usize,
    value: usize,
    /// Rows that are decoded and were not given.
    rows: usize,
}

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text(Vec<ByteArray>),
}

impl Reader {
    pub fn new(leaf: &Leaf, pages: Pages) -> Result<Self, String> {
        let column = guarded(|| get_column_reader(leaf.descr.clone(), Box::new(pages)))?;
        let values = match &column {
            ColumnReader::BoolColumnReader(_) => Values::Bool(Vec::new()),
            ColumnReader::Int32ColumnReader(_) => Values::Int32(Vec::new()),
            ColumnReader::Int64ColumnReader(_) => Values::Int64(Vec::new()),
            ColumnReader::FloatColumnReader(_) => Values::Float(Vec::new()),
            ColumnReader::DoubleColumnReader(_) => Values::Double(Vec::new()),
            ColumnReader::ByteArrayColumnReader(_) => Values::Text(Vec::new()),
            _ => return Err("has values of a type that is neither text nor number".into()),
        };
        let (definitions, repetitions) = (Vec::new(), Vec::new());
        Ok(Self { leaf: leaf.clone(), column, definitions, repetitions, values, level: 0, value: 0, rows: 0 })
    }

    /// The next row's cell. `bytes` is what the row may still hold.
    pub fn next(&mut self, bytes: &mut usize) -> Result<Cell, String> {
        if self.rows == 0 {
            self.fill()?;
        }
        if self.rows == 0 {
            return Err("has fewer rows than its group".into());
        }
        self.rows -= 1;
        let top = self.leaf.descr.max_def_level();
        let Some(item) = self.leaf.item else {
            let is_null = top > 0 && self.definition()? < top;
            return Ok(Cell::One(if is_null { Value::Null } else { self.take(bytes)? }));
        };
        let (mut ints, mut items) = (Vec::new(), Vec::new());
        loop {
            let definition = self.definition()?;
            if definition >= item {
                match if definition == top { self.take(bytes)? } else { Value::Null } {
                    Value::Int(value) if items.is_empty() => ints.push(value),
                    other => {
                        items.extend(ints.drain(..).map(Value::Int));
                        items.push(other);
                    }
                }
            } else if definition + 1 < item {
                return Ok(Cell::One(Value::Null));
            }
            if self.repetitions.get(self.level).is_none_or(|repetition| *repetition == 0) {
                return Ok(if items.is_empty() && !ints.is_empty() { Cell::Ints(ints) } else { Cell::Items(items) });
            }
        }
    }

    fn definition(&mut self) -> Result<i16, String> {
        let level = self.definitions.get(self.level).copied();
        self.level += 1;
        level.ok_or_else(|| "has fewer levels than rows".into())
    }

    fn take(&mut self, bytes: &mut usize) -> Result<Value, String> {
        let at = self.value;
        self.value += 1;
        let found = match &self.values {
            Values::Bool(values) => values.get(at).map(|v| Value::Bool(*v)),
            Values::Int32(values) => values.get(at).map(|v| Value::Int((*v).into())),
            Values::Int64(values) => values.get(at).map(|v| Value::Int(*v)),
            Values::Float(values) => values.get(at).map(|v| Value::Float((*v).into())),
            Values::Double(values) => values.get(at).map(|v| Value::Float(*v)),
            Values::Text(values) => match values.get(at) {
                Some(text) => {
                    let left = bytes.checked_sub(text.len());
                    *bytes = left.ok_or_else(|| format!("a row is longer than {ROW_BYTES} bytes"))?;
                    let text = std::str::from_utf8(text.data()).map_err(|_| "has text that is not UTF-8")?;
                    Some(Value::Text(text.to_owned()))
                }
                None => None,
            },
        };
        found.ok_or_else(|| "has fewer values than levels".into())
    }

    fn fill(&mut self) -> Result<(), String> {
        self.definitions.clear();
        self.repetitions.clear();
        (self.level, self.value) = (0, 0);
        let levels = (&mut self.definitions, &mut self.repetitions);
        macro_rules! read {
            ($($column:ident $values:ident),*) => {
                match (&mut self.column, &mut self.values) {
                    $((ColumnReader::$column(column), Values::$values(values)) => records(column, levels, values),)*
                    _ => Err("has values of another type than its column".into()),
                }
            };
        }
        self.rows = read!(
            BoolColumnReader Bool, Int32ColumnReader Int32, Int64ColumnReader Int64,
            FloatColumnReader Float, DoubleColumnReader Double, ByteArrayColumnReader Text
        )?;
        Ok(())
    }
}

fn records<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    (definitions, repetitions): (&mut Vec<i16>, &mut Vec<i16>),
    values: &mut Vec<T::T>,
) -> Result<usize, String> {
    values.clear();
    let read = guarded(|| column.read_records(BATCH, Some(definitions), Some(repetitions), values))?;
    read.map(|(records, _, _)| records).map_err(|error| error.to_string())
}

/// Calls the library; a panic inside of it is an error like any other.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the parquet library stopped: {}", said.unwrap_or("no reason given"))
    })
}

/// The cells of the columns of a list of objects, side by side.
pub fn objects(columns: Vec<(Arc<str>, Cell)>) -> Result<Value, String> {
    if columns.iter().all(|(_, cell)| matches!(cell, Cell::One(Value::Null))) {
        return Ok(Value::Null);
    }
    let mut rows: Vec<crate::data::value::Object> = Vec::new();
    for (at, (name, cell)) in columns.into_iter().enumerate() {
        let items: Vec<Value> = match cell {
            Cell::Items(items) => items,
            Cell::Ints(ints) => ints.into_iter().map(Value::Int).collect(),
            Cell::One(value) => vec![value],
        };
        if at == 0 {
            rows.resize_with(items.len(), Default::default);
        }
        if rows.len() != items.len() {
            return Err(format!("has lists of {} and {} items side by side", rows.len(), items.len()));
        }
        for (row, item) in rows.iter_mut().zip(items) {
            row.0.push((name.to_string(), item));
        }
    }
    Ok(Value::List(rows.into_iter().map(Value::Object).collect()))
}

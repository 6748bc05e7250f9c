//! A NumPy array of tokens: `[rows, tokens]`, or `[tokens]` as one long sequence.

use std::io::{BufReader, Read, SeekFrom};

use windlass_formats::npz::npy;
use windlass_tensor::{DType, Limits};

use super::{Bad, Container, Head, Input, Place, Row, Rows, Stream, Wanted};
use crate::data::bounds::ROW_BYTES;
use crate::data::value::{Object, Value};

/// Tokens of a long sequence that are read together.
const PIECE: usize = 1 << 20;

/// The container.
pub struct Npy;

impl Container for Npy {
    fn name(&self) -> &'static str {
        "NumPy array"
    }

    fn detect(&self, head: &Head) -> bool {
        head.bytes.starts_with(b"\x93NUMPY")
    }

    fn open(&self, mut input: Box<dyn Input>, _: &Wanted, _: &Limits) -> Result<Box<dyn Rows>, String> {
        let io = |error: std::io::Error| error.to_string();
        let length = input.seek(SeekFrom::End(0)).map_err(io)?;
        input.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut head = vec![0; 12.min(length as usize)];
        input.read_exact(&mut head).map_err(io)?;
        let whole = npy::header_length(&head, length).map_err(|p| p.message)?;
        let from = head.len().min(whole);
        head.resize(whole, 0);
        input.seek(SeekFrom::Start(from as u64)).map_err(io)?;
        input.read_exact(&mut head[from..]).map_err(io)?;
        let array = npy::parse(&head, length).map_err(|p| p.message)?;
        let width = array.dtype.size();
        if !matches!(
            array.dtype,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::I16 | DType::I32 | DType::I64
        ) {
            return Err(format!("holds values of type {}, expected whole numbers", array.dtype));
        }
        let (rows, columns, stream) = match array.shape.as_slice() {
            [tokens] => (tokens.div_ceil(PIECE), PIECE, true),
            [rows, columns] if columns.saturating_mul(width) <= ROW_BYTES => (*rows, *columns, false),
            shape => return Err(format!("has the shape {shape:?}, expected [rows, tokens] or [tokens]")),
        };
        let left = array.shape.iter().product();
        let input = BufReader::with_capacity(1 << 16, input);
        Ok(Box::new(Tokens { input, dtype: array.dtype, rows, columns, left, row: 0, stream }))
    }
}

struct Tokens {
    input: BufReader<Box<dyn Input>>,
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Tokens that were not read.
    left: usize,
    row: usize,
    stream: bool,
}

impl Rows for Tokens {
    fn next(&mut self) -> Option<Result<Row, Bad>> {
        if self.row == self.rows {
            return None;
        }
        self.row += 1;
        let place = Place::Row(self.row as u64);
        let count = self.columns.min(self.left);
        self.left -= count;
        let mut bytes = vec![0; count * self.dtype.size()];
        if let Err(error) = self.input.read_exact(&mut bytes) {
            self.row = self.rows;
            return Some(Err(Bad { place, message: error.to_string(), last: true }));
        }
        let columns = Object(vec![("input_ids".into(), Value::Ints(integers(&bytes, self.dtype)))]);
        let end = if self.left == 0 { Stream::Ends } else { Stream::Goes };
        Some(Ok(Row { place, columns, stream: self.stream.then_some(end) }))
    }
}

fn integers(bytes: &[u8], dtype: DType) -> Vec<i64> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> i64) -> Vec<i64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)).collect()
    }
    match dtype {
        DType::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
        DType::U16 => each(bytes, |b| u16::from_le_bytes(b).into()),
        DType::I16 => each(bytes, |b| i16::from_le_bytes(b).into()),
        DType::U32 => each(bytes, |b| u32::from_le_bytes(b).into()),
        DType::I32 => each(bytes, |b| i32::from_le_bytes(b).into()),
        // What does not fit is no token of any model, and is told as such.
        DType::U64 => each(bytes, |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)),
        _ => each(bytes, i64::from_le_bytes),
    }
}

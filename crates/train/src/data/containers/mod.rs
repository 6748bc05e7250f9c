//! Files of rows. A container is known by its content; each is one file here and one line in `CONTAINERS`.

mod csv;
mod json;
mod jsonl;
mod lines;
mod npy;
mod parquet;
mod text;

use std::io::{Read, Seek, SeekFrom};

use windlass_tensor::Limits;

use super::bounds;
use super::value::Object;

/// Where rows are read from.
pub trait Input: Read + Seek + Send {}

impl<T: Read + Seek + Send> Input for T {}

/// A format of files of rows.
pub trait Container: Sync {
    /// Its name in errors and reports.
    fn name(&self) -> &'static str;

    /// Whether a file that begins so is one.
    fn detect(&self, head: &Head) -> bool;

    /// Begins to read; `input` stands at its first byte, behind a byte order mark.
    fn open(&self, input: Box<dyn Input>, wanted: &Wanted, limits: &Limits) -> Result<Box<dyn Rows>, String>;
}

/// What rows are read for.
pub struct Wanted<'a> {
    /// Columns that are looked at; others need not be read.
    pub names: &'a [String],
    /// Whether a row with these columns is understood.
    pub fits: &'a dyn Fn(&[String]) -> bool,
}

/// The containers, in the order they are asked: those with a signature first, and last what any text is.
pub const CONTAINERS: [&dyn Container; 6] =
    [&parquet::Parquet, &npy::Npy, &json::Json, &jsonl::Jsonl, &csv::Csv, &text::Text];

/// Rows one after the other.
pub trait Rows: Send {
    /// The next row; `None` at the end.
    fn next(&mut self) -> Option<Result<Row, Bad>>;
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub place: Place,
    pub columns: Object,
    /// Whether it is a piece of one long sequence, which is cut where the context ends, and whether more follows.
    pub stream: Option<Stream>,
}

/// A piece of one long sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Goes,
    Ends,
}

/// Where a row is, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Line(u64),
    Row(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Line(number) => write!(f, "line {number}"),
            Place::Row(number) => write!(f, "row {number}"),
        }
    }
}

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub place: Place,
    pub message: String,
    /// Whether what comes after it cannot be read either.
    pub last: bool,
}

/// How a file begins.
pub struct Head<'a> {
    pub bytes: &'a [u8],
    /// Whether this is all of it.
    pub whole: bool,
    /// Of the file's name, in small letters; only asked where content says nothing.
    pub extension: &'a str,
    pub wanted: &'a Wanted<'a>,
}

impl Head<'_> {
    /// What comes first, but for white space.
    fn trimmed(&self) -> &[u8] {
        self.bytes.trim_ascii_start()
    }
}

/// Finds the container of `input` and begins to read it.
pub fn open(
    mut input: Box<dyn Input>,
    extension: &str,
    wanted: &Wanted,
    limits: &Limits,
) -> Result<(&'static dyn Container, Box<dyn Rows>), String> {
    let mut bytes = Vec::new();
    let io = |error: std::io::Error| error.to_string();
    (&mut input).take(bounds::HEAD_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
    if let Some((_, what)) = REFUSED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err((*what).into());
    }
    let mark = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let whole = bytes.len() < bounds::HEAD_BYTES;
    let extension = extension.to_ascii_lowercase();
    let head = Head { bytes: &bytes[mark..], whole, extension: &extension, wanted };
    let found = CONTAINERS.into_iter().find(|container| container.detect(&head));
    let container = found.ok_or("is not text, JSON, CSV, Parquet or a NumPy array")?;
    input.seek(SeekFrom::Start(mark as u64)).map_err(io)?;
    Ok((container, container.open(input, wanted, limits)?))
}

/// What people have lying about, and what to do with it.
const REFUSED: [(&[u8], &str); 6] = [
    (b"\xff\xfe", "is UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text: save it as UTF-8"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it first"),
    (b"PK\x03\x04", "is a zip archive: unpack it first"),
    (b"ARROW1", "is an Arrow file: save it as Parquet"),
];

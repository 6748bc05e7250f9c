//! Bounded, buffered reading of a header: each request is checked against what is left before anything is allocated.

use std::fs::File;
use std::io;
use std::path::Path;

use windlass_tensor::Limits;

use crate::{Error, Problem};

/// Bytes fetched at once; the headers of most models fit in a few of these.
const CHUNK: u64 = 1 << 20;

/// Bytes that can be read at any place.
pub(super) trait ReadAt {
    /// Fills the buffer from `offset`; an early end is [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        crate::files::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|from| from.checked_add(buffer.len()).map(|to| from..to));
        let bytes = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// A cursor over the header.
pub(super) struct Reader<'a> {
    input: &'a dyn ReadAt,
    pub path: &'a Path,
    pub limits: &'a Limits,
    /// Bytes of the whole file.
    pub length: u64,
    /// Lengths and counts have 4 bytes instead of 8 (version 1).
    pub narrow: bool,
    chunk: Vec<u8>,
    /// Place of the chunk in the file, and of the cursor in the chunk.
    start: u64,
    at: usize,
}

/// A number of fixed size, stored little-endian.
pub(super) trait Number: Sized {
    const SIZE: usize;
    /// `bytes` has exactly `SIZE` bytes.
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const SIZE: usize = size_of::<$type>();
            #[inline]
            fn from_le(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$type>()];
                array.copy_from_slice(bytes);
                <$type>::from_le_bytes(array)
            }
        }
    )*};
}
number!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl<'a> Reader<'a> {
    /// Starts at the beginning of `input`, which has `length` bytes; `path` is for messages.
    pub fn new(input: &'a dyn ReadAt, length: u64, path: &'a Path, limits: &'a Limits) -> Self {
        Self { input, path, limits, length, narrow: false, chunk: Vec::new(), start: 0, at: 0 }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Bytes that the header can still have.
    pub fn remaining(&self) -> u64 {
        self.length.min(self.limits.header_bytes).saturating_sub(self.position())
    }

    /// The error of a problem with this file.
    pub fn refuse(&self, problem: Problem) -> Error {
        Error::refused(self.path, problem)
    }

    /// Makes sure that `count` items of at least `size` bytes each can still come.
    #[inline]
    pub fn expect(&self, count: u64, size: u64, what: &str) -> Result<(), Error> {
        if count.checked_mul(size).is_some_and(|bytes| bytes <= self.remaining()) {
            return Ok(());
        }
        Err(self.short(count, size, what))
    }

    #[cold]
    fn short(&self, count: u64, size: u64, what: &str) -> Error {
        let problem = if self.length > self.limits.header_bytes {
            let message =
                format!("{count} {what} do not fit in a header of {} bytes, the limit", self.limits.header_bytes);
            Problem::new("header-too-large", message)
        } else {
            let message = format!(
                "{count} {what} of at least {size} bytes each were announced, the file has {} bytes left: it is \
                 truncated or damaged",
                self.remaining()
            );
            Problem::new("truncated", message).help("download the file again, or compare its checksum")
        };
        self.refuse(problem.offset(self.position()))
    }

    /// The next `count` bytes, and moves behind them.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&[u8], Error> {
        if self.chunk.len() - self.at < count {
            self.fill(count)?;
        }
        let from = self.at;
        self.at += count;
        Ok(&self.chunk[from..from + count])
    }

    /// Makes the chunk begin at the cursor and have at least `count` bytes.
    #[cold]
    fn fill(&mut self, count: usize) -> Result<(), Error> {
        self.expect(count as u64, 1, "bytes")?;
        let size = self.remaining().min(CHUNK.max(count as u64)) as usize;
        self.chunk.drain(..self.at);
        (self.start, self.at) = (self.position(), 0);
        let kept = self.chunk.len();
        self.chunk.resize(size, 0);
        let offset = self.start + kept as u64;
        self.input.read_exact_at(&mut self.chunk[kept..], offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let message = "the file became shorter while it was read";
                Error::refused(self.path, Problem::new("shrunk", message).offset(offset))
            }
            _ => Error::io(self.path, e),
        })
    }

    /// One number.
    #[inline]
    pub fn number<T: Number>(&mut self) -> Result<T, Error> {
        Ok(T::from_le(self.take(T::SIZE)?))
    }

    /// A list of numbers.
    pub fn numbers<T: Number>(&mut self, count: usize) -> Result<Vec<T>, Error> {
        self.expect(count as u64, T::SIZE as u64, "items")?;
        let bytes = self.take(count * T::SIZE)?;
        Ok(bytes.chunks_exact(T::SIZE).map(T::from_le).collect())
    }

    /// Bytes of a length or count.
    pub fn count_size(&self) -> u64 {
        if self.narrow { 4 } else { 8 }
    }

    /// A length or count in the width of this version.
    #[inline]
    pub fn count(&mut self) -> Result<u64, Error> {
        if self.narrow { Ok(u64::from(self.number::<u32>()?)) } else { self.number() }
    }

    /// A string of at most `limit` bytes; `what` is for messages.
    pub fn string(&mut self, what: &str, limit: u64) -> Result<String, Error> {
        self.with_string(what, limit, str::to_string)
    }

    /// As [`Reader::string`], without a copy: `take` sees the string where it was read.
    #[inline]
    pub fn with_string<T>(&mut self, what: &str, limit: u64, take: impl FnOnce(&str) -> T) -> Result<T, Error> {
        let offset = self.position();
        let length = self.count()?;
        if length > limit {
            let message = format!("{what} has {length} bytes, at most {limit} are allowed");
            return Err(self.refuse(Problem::new("string-too-long", message).offset(offset)));
        }
        self.expect(length, 1, "bytes of a string")?;
        let bytes = self.take(length as usize)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(take(text)),
            Err(e) => {
                let at = offset + self.count_size() + e.valid_up_to() as u64;
                let message = format!("{what} is not valid UTF-8");
                Err(self.refuse(Problem::new("bad-utf8", message).offset(at)))
            }
        }
    }
}

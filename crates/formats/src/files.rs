//! Small helpers around files: positional reads and bounded whole reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::{Error, Problem};

/// Fills `buffer` from `offset`; an early end is [`io::ErrorKind::UnexpectedEof`].
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File, Error> {
    // Asked before opening: to open a pipe would wait for its writer.
    let kind = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !kind.is_file() {
        let message = "is not a regular file";
        return Err(Error::refused(path, Problem::new("not-a-file", message)));
    }
    File::open(path).map_err(|e| Error::io(path, e))
}

/// Reads a whole file that must not have more than `limit` bytes.
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > limit {
        let message = format!("has more than {limit} bytes, the limit for a file of this kind");
        return Err(Error::refused(path, Problem::new("too-large", message)));
    }
    Ok(bytes)
}

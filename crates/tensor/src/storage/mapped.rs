//! Files mapped into memory: nothing is read until it is touched, and nothing is copied.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::guard::Guard;
use super::{Buffer, Kind, RawHandle};
use crate::Error;

/// A whole file, mapped for reading.
///
/// If the file becomes shorter while it is mapped, the missing bytes read as zero and [`Buffer::check`] is an error
/// that names the file. If somebody writes into the file, readers see some mixture of old and new bytes: mapping is
/// for files at rest.
pub struct MappedFile {
    // Before `map`, so that it is dropped first: a guard must never describe addresses that are not ours any more.
    guard: Guard,
    map: Mmap,
    path: PathBuf,
}

impl MappedFile {
    /// Maps the file at `path`, however long it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| io_error(path, source))?;
        let length = file.metadata().map_err(|source| io_error(path, source))?.len();
        Self::map(&file, path, length)
    }

    /// Maps an open file that had `length` bytes when its header was read; another length now is an error. `path` is
    /// for messages.
    pub fn map(file: &File, path: impl AsRef<Path>, length: u64) -> Result<Self, Error> {
        let path = path.as_ref();
        let now = file.metadata().map_err(|source| io_error(path, source))?;
        if !now.is_file() {
            return Err(Error::Argument(format!("{}: only regular files can be mapped", path.display())));
        }
        if now.len() != length {
            let message = format!("{}: the file had {length} bytes and has {} now", path.display(), now.len());
            return Err(Error::Argument(message));
        }
        // SAFETY: the bytes are plain data of which every value is valid. That other processes leave them alone is
        // asked of the user, as with every mapped file; a file that becomes shorter is what `guard` is for.
        let map = unsafe { Mmap::map(file) }.map_err(|source| io_error(path, source))?;
        Self::guarded(map, path.into())
    }

    /// Puts a mapping under guard.
    pub(super) fn guarded(map: Mmap, path: PathBuf) -> Result<Self, Error> {
        let guard = Guard::new(map.as_ptr(), map.len()).map_err(|source| io_error(&path, source))?;
        Ok(Self { guard, map, path })
    }
}

impl Buffer for MappedFile {
    fn kind(&self) -> Kind {
        Kind::Mapped
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn handle(&self) -> RawHandle {
        RawHandle(self.map.as_ptr().addr() as u64)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(&self.map)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn check(&self) -> Result<(), Error> {
        if self.guard.damaged() { Err(Error::Damaged { path: self.path.clone() }) } else { Ok(()) }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}", self.map.len(), self.path.display())
    }
}

/// The system's error about `path`.
pub(super) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_mapped_file_shows_its_bytes() {
        let file = file_of(b"lift the anchor");
        let storage = Storage::new(MappedFile::open(file.path()).unwrap());
        assert_eq!(storage.slice(9, 6).unwrap().bytes().unwrap(), b"anchor");
        assert_eq!(storage.buffer().kind(), Kind::Mapped);
        assert_eq!(storage.buffer().path(), Some(file.path()));
        assert!(storage.check().is_ok());
        let empty = file_of(b"");
        assert!(MappedFile::open(empty.path()).unwrap().is_empty());
    }

    #[test]
    fn another_length_than_the_header_promised_is_refused() {
        let file = file_of(&[1; 100]);
        let error = MappedFile::map(file.as_file(), file.path(), 101).unwrap_err().to_string();
        assert!(error.contains("had 101 bytes and has 100 now"), "{error}");
        assert!(MappedFile::open(file.path().parent().unwrap()).is_err());
        let error = MappedFile::open("/nowhere/model.gguf").unwrap_err().to_string();
        assert!(error.contains("/nowhere/model.gguf"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_cut_while_in_use_is_an_error_that_names_it() {
        let file = file_of(&vec![7; 5 * 4096 + 100]);
        let storage = Storage::new(MappedFile::open(file.path()).unwrap());
        let other = file_of(&[9; 8192]);
        let other = Storage::new(MappedFile::open(other.path()).unwrap());
        file.as_file().set_len(4096 + 10).unwrap();

        let bytes = storage.bytes().unwrap();
        assert_eq!(bytes[0], 7);
        assert!(storage.check().is_ok(), "what is still there can be read");
        assert_eq!(bytes[3 * 4096], 0, "what is gone reads as zero");
        let error = storage.check().unwrap_err();
        assert!(matches!(&error, Error::Damaged { path } if path == file.path()), "{error}");
        assert!(error.to_string().contains(file.path().to_str().unwrap()));
        assert_eq!(bytes[5 * 4096 + 99], 0);
        assert_eq!(bytes[4096], 7);
        assert!(storage.read(0, &mut [0; 4]).is_err(), "a damaged region is not trusted anywhere");
        assert!(other.check().is_ok(), "other files are not concerned");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn many_threads_may_meet_the_end_at_once_and_slots_start_afresh() {
        for _ in 0..20 {
            let file = file_of(&vec![1; 64 * 4096]);
            let map = MappedFile::open(file.path()).unwrap();
            assert!(map.check().is_ok(), "a reused slot remembers no damage");
            file.as_file().set_len(0).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let map = &map;
                    scope.spawn(move || {
                        let sum: u64 =
                            (thread..64).step_by(4).map(|page| u64::from(map.bytes().unwrap()[page * 4096])).sum();
                        assert_eq!(sum, 0);
                        assert!(map.check().is_err());
                    });
                }
            });
        }
    }
}

//! Storage: the bytes behind tensors, and who owns them.
//!
//! A [`Buffer`] is one piece of memory with one owner, which frees it when dropped: on the host, in a mapped file, in
//! memory that several processes share, or whatever a provider adds. A [`Storage`] is a shared handle on a range of
//! it. Cutting a storage never copies.
//!
//! All `unsafe` of this crate is in this folder.

mod guard;
mod host;
mod mapped;
#[cfg(unix)]
mod shared;

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::Error;

pub use host::HostBuffer;
pub use mapped::MappedFile;
#[cfg(unix)]
pub use shared::SharedBuffer;

/// What kind of place a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Memory of this process.
    Host,
    /// A file; its pages come and go with the operating system.
    Mapped,
    /// One copy for several processes.
    Shared,
    /// Memory of a device, which a provider owns.
    Device,
    /// Cold, on disk; read back on touch.
    Spilled,
}

/// What a provider calls a buffer by: an address, or a number that its own tables give a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawHandle(pub u64);

/// One piece of memory with one owner. Providers implement it for the memory of their devices.
pub trait Buffer: Send + Sync {
    /// What kind of place it is.
    fn kind(&self) -> Kind;

    /// Name of the device whose memory this is: `cpu`, `cuda:0`.
    fn device(&self) -> &str {
        "cpu"
    }

    /// Number of bytes.
    fn len(&self) -> usize;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the provider of the device calls it by.
    fn handle(&self) -> RawHandle;

    /// The bytes, where the host can address them; `None` for memory that must be copied to be seen.
    ///
    /// Bytes of a file that was damaged while in use read as zero: call [`Buffer::check`] after reading them.
    fn bytes(&self) -> Option<&[u8]>;

    /// The bytes for writing, where the host can address them and writing is allowed.
    fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// The file behind it, if there is one.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// An error, naming the file, if anything that was read so far may have been wrong.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Copies `target.len()` bytes from `offset` to the host, and checks them.
    fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        let Some(bytes) = self.bytes() else {
            let message = format!("memory of {} cannot be read by the host: its provider has no copy", self.device());
            return Err(Error::Argument(message));
        };
        let range = checked_range(self.len(), offset, target.len())?;
        target.copy_from_slice(&bytes[range]);
        self.check()
    }

    /// For the provider that made it to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A range of bytes of a buffer. Cloning and slicing share the buffer, which lives until its last storage goes.
#[derive(Clone)]
pub struct Storage {
    buffer: Arc<dyn Buffer>,
    offset: usize,
    len: usize,
}

impl Storage {
    /// All of `buffer`.
    pub fn new(buffer: impl Buffer + 'static) -> Self {
        Self::from_arc(Arc::new(buffer))
    }

    /// All of a buffer that others may hold as well.
    pub fn from_arc(buffer: Arc<dyn Buffer>) -> Self {
        Self { len: buffer.len(), buffer, offset: 0 }
    }

    /// A copy of `bytes` in memory of this process.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self::new(HostBuffer::copy_of(bytes)?))
    }

    /// The buffer that the bytes lie in.
    pub fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }

    /// Where in the buffer they begin.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes `offset..offset + len` of these. Nothing is copied.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Self, Error> {
        let range = checked_range(self.len, offset, len)?;
        Ok(Self { buffer: self.buffer.clone(), offset: self.offset + range.start, len })
    }

    /// The bytes, where the host can address them. See [`Buffer::bytes`] on when to check.
    pub fn bytes(&self) -> Option<&[u8]> {
        // A buffer that answers with fewer bytes than it said has broken its word; nothing is read past its end.
        self.buffer.bytes()?.get(self.offset..self.offset + self.len)
    }

    /// The bytes for writing, if no other storage holds the buffer and it may be written.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let range = self.offset..self.offset + self.len;
        Arc::get_mut(&mut self.buffer)?.bytes_mut()?.get_mut(range)
    }

    /// Copies `target.len()` bytes from `offset` to the host, and checks them.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        let range = checked_range(self.len, offset, target.len())?;
        self.buffer.read(self.offset + range.start, target)
    }

    /// See [`Buffer::check`].
    pub fn check(&self) -> Result<(), Error> {
        self.buffer.check()
    }

    /// Whether both are ranges of one buffer.
    pub fn shares_buffer(&self, other: &Storage) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.buffer), Arc::as_ptr(&other.buffer))
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes from {} of {:?} memory", self.len, self.offset, self.buffer.kind())?;
        match self.buffer.path() {
            Some(path) => write!(f, " {}", path.display()),
            None => write!(f, " on {}", self.buffer.device()),
        }
    }
}

/// `offset..offset + len`, if that lies within `total` bytes.
fn checked_range(total: usize, offset: usize, len: usize) -> Result<Range<usize>, Error> {
    match offset.checked_add(len) {
        Some(end) if end <= total => Ok(offset..end),
        _ => Err(Error::Argument(format!("{len} bytes from {offset} do not lie within the {total} that there are"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_the_buffer_and_copy_nothing() {
        let all = Storage::copy_of(&[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        let part = all.slice(2, 5).unwrap().slice(1, 3).unwrap();
        assert_eq!(part.bytes().unwrap(), [3, 4, 5]);
        assert!(part.shares_buffer(&all));
        assert_eq!(part.bytes().unwrap().as_ptr(), all.bytes().unwrap()[3..].as_ptr());
        assert!(!Storage::copy_of(&[1]).unwrap().shares_buffer(&all));
    }

    #[test]
    fn nothing_outside_a_slice_can_be_reached() {
        let part = Storage::copy_of(&[1; 8]).unwrap().slice(2, 4).unwrap();
        assert!(part.slice(0, 5).is_err());
        assert!(part.slice(usize::MAX, 2).is_err());
        let mut two = [0; 2];
        part.read(2, &mut two).unwrap();
        assert_eq!(two, [1, 1]);
        let error = part.read(3, &mut two).unwrap_err().to_string();
        assert_eq!(error, "2 bytes from 3 do not lie within the 4 that there are");
    }

    #[test]
    fn only_the_one_owner_writes() {
        let mut storage = Storage::copy_of(&[1, 2, 3]).unwrap();
        let other = storage.clone();
        assert!(storage.bytes_mut().is_none());
        drop(other);
        storage.bytes_mut().unwrap()[1] = 9;
        assert_eq!(storage.bytes().unwrap(), [1, 9, 3]);
    }

    /// Memory that the host does not see, as a provider would bring it.
    struct Far(Vec<u8>);

    impl Buffer for Far {
        fn kind(&self) -> Kind {
            Kind::Device
        }
        fn device(&self) -> &str {
            "far:0"
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn handle(&self) -> RawHandle {
            RawHandle(7)
        }
        fn bytes(&self) -> Option<&[u8]> {
            None
        }
        fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
            target.copy_from_slice(&self.0[checked_range(self.0.len(), offset, target.len())?]);
            Ok(())
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    #[test]
    fn a_provider_brings_its_own_memory() {
        let storage = Storage::new(Far(vec![1, 2, 3, 4])).slice(1, 3).unwrap();
        assert!(storage.bytes().is_none());
        let mut host = [0; 2];
        storage.read(1, &mut host).unwrap();
        assert_eq!(host, [3, 4]);
        assert!(storage.buffer().as_any().is::<Far>());
        assert_eq!(format!("{storage:?}"), "3 bytes from 1 of Device memory on far:0");
    }
}

//! One copy of the weights for several processes.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use memmap2::MmapMut;

use super::guard::Guard;
use super::mapped::{MappedFile, io_error};
use super::{Buffer, Kind, RawHandle};
use crate::Error;

/// Bytes that every process of this user finds under one name, held in memory once.
///
/// The first process to ask for a name fills it; until it has, the others wait; from then on nobody can write. The
/// process that filled it takes the name away when it drops the buffer. Those that have it keep it: the memory goes
/// with its last user. A process that dies while filling leaves the work to the next one.
pub struct SharedBuffer {
    bytes: MappedFile,
    owner: Option<Identity>,
}

/// Device and inode: what a name meant at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl SharedBuffer {
    /// Longest name, in bytes.
    pub const NAME_BYTES: usize = 128;

    /// The buffer called `name`, of `len` bytes: the one that exists, or a new one that `fill` writes. An existing one
    /// of another length is an error. Names are letters, digits, `-`, `_` and `.`; a good one is a hash of what is in it.
    pub fn open_or_create(
        name: &str,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let path = path_of(name)?;
        let partial = path.with_extension("partial");
        loop {
            if let Some(found) = Self::existing(&path)? {
                if found.len() != len {
                    let message = format!("shared memory {name:?} has {} bytes, expected {len}", found.len());
                    return Err(Error::Argument(message));
                }
                return Ok(found);
            }
            if let Some(file) = lock(&partial).map_err(|source| io_error(&partial, source))? {
                // Somebody may have finished between the look and the lock.
                if !path.exists() {
                    return Self::create(&file, &partial, path, len, fill);
                }
                remove_if(&partial, identity(&file, &partial)?);
            }
        }
    }

    /// The buffer called `name`, if some process has filled it and not yet taken it away.
    pub fn open(name: &str) -> Result<Self, Error> {
        let path = path_of(name)?;
        Self::existing(&path)?.ok_or_else(|| io_error(&path, io::ErrorKind::NotFound.into()))
    }

    /// Takes a name away, for instance one that a killed process left. Whoever has the buffer keeps it.
    pub fn remove(name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        fs::remove_file(&path).map_err(|source| io_error(&path, source))
    }

    fn existing(path: &Path) -> Result<Option<Self>, Error> {
        let io = |source| io_error(path, source);
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let metadata = file.metadata().map_err(io)?;
        ours(&metadata).map_err(io)?;
        Ok(Some(Self { bytes: MappedFile::map(&file, path, metadata.len())?, owner: None }))
    }

    /// Fills `partial`, which is locked, and gives it its name. On an error nothing stays.
    fn create(
        file: &File,
        partial: &Path,
        path: PathBuf,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let io = |source| io_error(partial, source);
        let _cleanup = Cleanup { path: partial, identity: identity(file, partial)? };
        // To nothing first: a process that died may have left some of its bytes.
        file.set_len(0).map_err(io)?;
        reserve(file, len).map_err(io)?;
        // SAFETY: the file is locked, private to this user and not under its final name, so nobody else maps it.
        let mut map = unsafe { MmapMut::map_mut(file) }.map_err(io)?;
        let guard = Guard::new(map.as_ptr(), map.len()).map_err(io)?;
        fill(&mut map)?;
        if guard.damaged() {
            return Err(Error::Damaged { path: partial.into() });
        }
        drop(guard);
        let bytes = MappedFile::guarded(map.make_read_only().map_err(io)?, path.clone())?;
        file.set_permissions(Permissions::from_mode(0o400)).map_err(io)?;
        fs::rename(partial, &path).map_err(io)?;
        // Closing the file would not do it: a mapping keeps the file open, and with it the lock.
        file.unlock().map_err(io)?;
        Ok(Self { bytes, owner: Some(identity(file, &path)?) })
    }
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        if let (Some(owner), Some(path)) = (self.owner, self.bytes.path()) {
            remove_if(path, owner);
        }
    }
}

impl Buffer for SharedBuffer {
    fn kind(&self) -> Kind {
        Kind::Shared
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn handle(&self) -> RawHandle {
        self.bytes.handle()
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.bytes.bytes()
    }

    fn path(&self) -> Option<&Path> {
        self.bytes.path()
    }

    fn check(&self) -> Result<(), Error> {
        self.bytes.check()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared {:?}", self.bytes)
    }
}

/// Takes the unfinished file away; once it has its final name there is nothing left to take.
struct Cleanup<'a> {
    path: &'a Path,
    identity: Identity,
}

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        remove_if(self.path, self.identity);
    }
}

/// Where shared memory lies: a file system in memory where there is one, else the folder for temporary files, whose
/// pages all processes share as well.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.into() } else { std::env::temp_dir() }
}

fn path_of(name: &str) -> Result<PathBuf, Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > SharedBuffer::NAME_BYTES || !name.chars().all(good) {
        return Err(Error::Argument(format!(
            "a name of shared memory has 1 to {} letters, digits, '-', '_' or '.', not {name:?}",
            SharedBuffer::NAME_BYTES
        )));
    }
    Ok(folder().join(format!("windlass-{name}.shared")))
}

/// Refuses a file that another user put under our name: the folder is open to all.
fn ours(metadata: &fs::Metadata) -> io::Result<()> {
    // SAFETY: a call that cannot fail and touches no memory.
    if metadata.uid() == unsafe { libc::geteuid() } {
        return Ok(());
    }
    let message = "the shared memory belongs to another user; use another name";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Opens the unfinished file and waits until nobody else has it. `None` if it was finished or dropped meanwhile: the
/// file in hand is then not the one of that name any more.
fn lock(partial: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(partial)?;
    ours(&file.metadata()?)?;
    file.lock()?;
    let mine = Identity::of(&file.metadata()?);
    match fs::metadata(partial) {
        Ok(now) if Identity::of(&now) == mine => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn identity(file: &File, path: &Path) -> Result<Identity, Error> {
    file.metadata().map(|m| Identity::of(&m)).map_err(|source| io_error(path, source))
}

/// Removes `path` if it still means the same file.
fn remove_if(path: &Path, identity: Identity) {
    if fs::metadata(path).is_ok_and(|now| Identity::of(&now) == identity) {
        // It may be gone by now, which is what was wanted.
        let _ = fs::remove_file(path);
    }
}

/// Gives `file` its length and its memory, so that filling it cannot run out of memory halfway.
fn reserve(file: &File, len: usize) -> io::Result<()> {
    file.set_len(len as u64)?;
    #[cfg(target_os = "linux")]
    if len > 0 {
        use std::os::fd::AsRawFd;
        let length = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: a call on a file descriptor that is open; it touches no memory of ours.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 | libc::EOPNOTSUPP => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;

    fn unique(name: &str) -> String {
        format!("test-{name}-{}", std::process::id())
    }

    fn fill_with(value: u8) -> impl FnOnce(&mut [u8]) -> Result<(), Error> {
        move |bytes| {
            bytes.fill(value);
            Ok(())
        }
    }

    #[test]
    fn the_second_sees_the_bytes_of_the_first_and_nothing_is_left() {
        let name = unique("two");
        let first = SharedBuffer::open_or_create(&name, 5000, fill_with(3)).unwrap();
        let path = first.path().unwrap().to_path_buf();
        let second =
            SharedBuffer::open_or_create(&name, 5000, |_| panic!("it is there already")).map(Storage::new).unwrap();
        assert_eq!(second.bytes().unwrap(), [3; 5000]);
        assert!(SharedBuffer::open_or_create(&name, 5001, fill_with(0)).is_err());
        let (a, b) = (identity_of(&path), second.buffer().path().map(identity_of));
        assert!(Some(a) == b);
        drop(first);
        assert!(!path.exists() && !path.with_extension("partial").exists());
        assert_eq!(second.bytes().unwrap()[4999], 3, "whoever has it keeps it");
        assert!(SharedBuffer::open(&name).is_err());
    }

    fn identity_of(path: &Path) -> Identity {
        Identity::of(&fs::metadata(path).unwrap())
    }

    #[test]
    fn another_process_finds_it() {
        const CHILD: &str = "WINDLASS_TEST_SHARED";
        if let Ok(name) = std::env::var(CHILD) {
            let shared = SharedBuffer::open(&name).unwrap();
            println!("sum {}", shared.bytes().unwrap().iter().map(|b| u32::from(*b)).sum::<u32>());
            return;
        }
        let name = unique("process");
        let _shared = SharedBuffer::open_or_create(&name, 100, fill_with(2)).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["storage::shared::tests::another_process_finds_it", "--exact", "--nocapture"])
            .env(CHILD, &name)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&child.stdout).contains("sum 200"), "{child:?}");
    }

    #[test]
    fn of_many_only_one_fills() {
        let name = unique("race");
        let filled = std::sync::atomic::AtomicUsize::new(0);
        let fill = |bytes: &mut [u8]| {
            filled.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            bytes.fill(5);
            Ok(())
        };
        let all: Vec<SharedBuffer> = std::thread::scope(|scope| {
            let open = || SharedBuffer::open_or_create(&name, 1 << 16, fill).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|shared| shared.bytes().unwrap().iter().all(|b| *b == 5)));
        assert_eq!(filled.into_inner(), 1);
    }

    #[test]
    fn a_failed_fill_leaves_nothing_and_a_dead_one_is_done_again() {
        let name = unique("failed");
        let path = path_of(&name).unwrap();
        let partial = path.with_extension("partial");
        let failed = SharedBuffer::open_or_create(&name, 64, |_| Err(Error::Argument("no weights".into())));
        assert_eq!(failed.unwrap_err().to_string(), "no weights");
        assert!(!path.exists() && !partial.exists());
        fs::write(&partial, [1; 999]).unwrap();
        let shared = SharedBuffer::open_or_create(&name, 64, |bytes| {
            assert!(bytes.iter().all(|b| *b == 0), "nothing of the dead process is seen");
            fill_with(4)(bytes)
        });
        assert_eq!(shared.unwrap().bytes().unwrap(), [4; 64]);
    }

    #[test]
    fn names_stay_inside_the_folder_and_more_than_there_is_is_an_error() {
        for bad in ["", "../x", "a/b", &"x".repeat(200), "a b"] {
            assert!(SharedBuffer::open(bad).is_err(), "{bad:?}");
        }
        let name = unique("large");
        assert!(SharedBuffer::open_or_create(&name, 1 << 60, fill_with(0)).is_err());
        assert!(!path_of(&name).unwrap().with_extension("partial").exists());
    }

    #[test]
    fn a_link_or_a_file_of_another_user_is_not_followed() {
        let name = unique("link");
        let path = path_of(&name).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(SharedBuffer::open(&name).is_err());
        fs::remove_file(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(ours(&file.metadata().unwrap()).is_ok());
        // As root, a file can be given away to see the refusal.
        if std::os::unix::fs::fchown(&file, Some(12345), None).is_ok() {
            assert!(ours(&file.metadata().unwrap()).is_err());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn shared_memory_cut_by_somebody_is_an_error_that_names_it() {
        let name = unique("cut");
        let shared = SharedBuffer::open_or_create(&name, 3 * 4096, fill_with(8)).unwrap();
        let path = shared.path().unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
        assert_eq!(shared.bytes().unwrap()[5000], 0);
        assert!(shared.check().unwrap_err().to_string().contains(&name));
    }
}

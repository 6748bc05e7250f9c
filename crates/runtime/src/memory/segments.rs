//! Memory that processes share, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use windlass_tensor::Storage;
use windlass_tensor::storage::{Buffer, SharedBuffer};

/// The shared memory that this process has attached. Whoever asks for a name twice gets the same mapping; the memory
/// itself is there once for all processes of the user.
#[derive(Default)]
pub struct Segments {
    table: Mutex<BTreeMap<String, Arc<Slot>>>,
}

/// One entry of the table; its lock is held while the first user fills it, so that other names need not wait.
type Slot = Mutex<Weak<SharedBuffer>>;

/// What [`Segments::list`] says of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub name: String,
    pub bytes: usize,
    /// Storages of this process that hold it.
    pub users: usize,
}

impl Segments {
    /// The table of this process.
    pub fn of_process() -> &'static Segments {
        static SEGMENTS: Segments = Segments { table: Mutex::new(BTreeMap::new()) };
        &SEGMENTS
    }

    /// The segment called `name`, of `bytes` bytes. If no process has it, `fill` writes it once; then nobody can. It is
    /// detached when its last storage is dropped. See [`SharedBuffer::open_or_create`] for names and errors.
    pub fn attach(
        &self,
        name: &str,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), windlass_tensor::Error>,
    ) -> Result<Storage, windlass_tensor::Error> {
        self.with_slot(name, || SharedBuffer::open_or_create(name, bytes, fill), bytes)
    }

    /// The segment called `name`, of `bytes` bytes, if a process has filled it.
    pub fn attach_existing(&self, name: &str, bytes: usize) -> Result<Storage, windlass_tensor::Error> {
        self.with_slot(name, || SharedBuffer::open(name), bytes)
    }

    /// What this process has attached now, by name.
    pub fn list(&self) -> Vec<Segment> {
        let slots: Vec<_> = lock(&self.table).iter().map(|(name, slot)| (name.clone(), slot.clone())).collect();
        let segment = |(name, slot): (String, Arc<Slot>)| {
            let shared = lock(&slot).upgrade()?;
            // One of the handles is ours, for the length of this call.
            Some(Segment { name, bytes: shared.len(), users: Arc::strong_count(&shared) - 1 })
        };
        slots.into_iter().filter_map(segment).collect()
    }

    fn with_slot(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<SharedBuffer, windlass_tensor::Error>,
        bytes: usize,
    ) -> Result<Storage, windlass_tensor::Error> {
        let slot = {
            let mut table = lock(&self.table);
            // Nobody else holds a slot that only the table holds: what is gone need not be remembered.
            table.retain(|key, slot| key == name || Arc::strong_count(slot) > 1 || lock(slot).strong_count() > 0);
            table.entry(name.to_string()).or_default().clone()
        };
        let mut found = lock(&slot);
        let shared = match found.upgrade() {
            Some(shared) => shared,
            None => {
                let shared = Arc::new(open()?);
                *found = Arc::downgrade(&shared);
                shared
            }
        };
        if shared.len() != bytes {
            let message = format!("shared memory {name:?} has {} bytes, expected {bytes}", shared.len());
            return Err(windlass_tensor::Error::Argument(message));
        }
        Ok(Storage::from_arc(shared))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn unique(name: &str) -> String {
        format!("test-segments-{name}-{}", std::process::id())
    }

    #[test]
    fn a_name_is_attached_once_and_detached_with_its_last_user() {
        let (segments, name, fills) = (Segments::default(), unique("once"), AtomicUsize::new(0));
        let attach = || {
            segments.attach(&name, 100, |bytes| {
                fills.fetch_add(1, Ordering::Relaxed);
                bytes.fill(6);
                Ok(())
            })
        };
        let all: Vec<Storage> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| attach().unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|s| s.shares_buffer(&all[0]) && s.bytes().unwrap() == [6; 100]));
        assert_eq!(fills.load(Ordering::Relaxed), 1);
        assert_eq!(segments.list(), [Segment { name: name.clone(), bytes: 100, users: 6 }]);
        assert!(segments.attach(&name, 99, |_| Ok(())).is_err());
        drop(all);
        assert!(segments.list().is_empty() && segments.attach_existing(&name, 100).is_err());
        drop(attach().unwrap());
        assert_eq!(fills.load(Ordering::Relaxed), 2);
    }

    /// Bytes of this process that it shares with nobody, from the system's own books.
    #[cfg(target_os = "linux")]
    fn private_bytes() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024).sum()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn two_processes_hold_one_copy() {
        const CHILD: &str = "WINDLASS_TEST_SEGMENT";
        const BYTES: usize = 64 << 20;
        if let Ok(name) = std::env::var(CHILD) {
            let before = private_bytes();
            let storage = Segments::of_process().attach_existing(&name, BYTES).unwrap();
            let sum: u64 = storage.bytes().unwrap().iter().map(|b| u64::from(*b)).sum();
            println!("sum {sum}, grown {}", private_bytes().saturating_sub(before) / (16 << 20));
            return;
        }
        let name = unique("process");
        let fill = |bytes: &mut [u8]| {
            bytes.fill(1);
            Ok(())
        };
        let _held = Segments::of_process().attach(&name, BYTES, fill).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["memory::segments::tests::two_processes_hold_one_copy", "--exact", "--nocapture"])
            .env(CHILD, &name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(text.contains(&format!("sum {BYTES}, grown 0")), "{child:?}");
    }
}

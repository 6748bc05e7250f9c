//! What happens when a mapped file becomes shorter while it is in use.
//!
//! Unix answers a read past the new end with the signal SIGBUS, which ends the process. This module keeps a list of
//! mapped regions and handles the signal: inside a region it puts pages of zero where the file was and marks the
//! region as damaged, so that the read goes on and the next check is an error that names the file. Outside every
//! region the signal goes where it went before.
//!
//! The handler may run at any moment on any thread, so it only reads atomics of slots that are never freed and makes
//! one system call; slots are reused, not returned.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock};

/// A region under guard for as long as this lives.
pub(super) struct Guard {
    slot: &'static Slot,
}

impl Guard {
    /// Guards `len` bytes from address `start`, which must stay one mapping, of which nothing is written but by the
    /// caller, until the guard is dropped. The first call installs the handler.
    pub(super) fn new(start: *const u8, len: usize) -> io::Result<Self> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| install().map_err(|e| e.raw_os_error().unwrap_or(0)));
        installed.map_err(io::Error::from_raw_os_error)?;
        let start = start.addr();
        Ok(Self { slot: Slot::take(start, start + len) })
    }

    /// Whether some of the region was replaced by zeros.
    pub(super) fn damaged(&self) -> bool {
        self.slot.damaged.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.slot.set(0, 0);
    }
}

/// One entry of the list. `generation` is odd while the other fields change.
struct Slot {
    generation: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    damaged: AtomicBool,
    next: *const Slot,
}

// SAFETY: all fields are atomics but `next`, which is written before the slot is published and never again.
unsafe impl Sync for Slot {}

/// The newest slot; the others follow by `next`.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());

/// Held by whoever takes a slot; the handler does without.
static TAKING: Mutex<()> = Mutex::new(());

impl Slot {
    /// A free slot, set to `start..end`; a new one if all are taken.
    fn take(start: usize, end: usize) -> &'static Slot {
        let _taking = TAKING.lock().unwrap_or_else(|e| e.into_inner());
        let slot = all().find(|slot| slot.end.load(Ordering::Acquire) == 0).unwrap_or_else(|| {
            let slot = Box::leak(Box::new(Slot {
                generation: AtomicUsize::new(0),
                start: AtomicUsize::new(0),
                end: AtomicUsize::new(0),
                damaged: AtomicBool::new(false),
                next: SLOTS.load(Ordering::Acquire),
            }));
            SLOTS.store(slot, Ordering::Release);
            slot
        });
        slot.damaged.store(false, Ordering::SeqCst);
        slot.set(start, end);
        slot
    }

    fn set(&self, start: usize, end: usize) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The end of the region, if `address` lies in it. A slot that is being changed guards nothing that anybody reads.
    fn end_if_around(&self, address: usize) -> Option<usize> {
        let before = self.generation.load(Ordering::Acquire);
        let (start, end) = (self.start.load(Ordering::Acquire), self.end.load(Ordering::Acquire));
        fence(Ordering::SeqCst);
        let steady = before.is_multiple_of(2) && self.generation.load(Ordering::Acquire) == before;
        (steady && (start..end).contains(&address)).then_some(end)
    }
}

/// Every slot, newest first.
fn all() -> impl Iterator<Item = &'static Slot> {
    let mut next: *const Slot = SLOTS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: a published slot was leaked by `take` and stays valid for ever; null ends the list.
        let slot: &'static Slot = unsafe { next.as_ref() }?;
        next = slot.next;
        Some(slot)
    })
}

#[cfg(unix)]
use on_unix::install;

#[cfg(unix)]
mod on_unix {
    use std::ffi::c_int;
    use std::mem::MaybeUninit;

    use super::*;

    /// What SIGBUS did before.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
    static PAGE: AtomicUsize = AtomicUsize::new(4096);

    pub(super) fn install() -> io::Result<()> {
        // SAFETY: a query that touches no memory of ours.
        if let page @ 1.. = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } {
            PAGE.store(page as usize, Ordering::Release);
        }
        let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: no new action is given, and the old one goes to memory that can hold it.
        if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Kept before the handler is in place, so that the handler always finds it.
        // SAFETY: the call above succeeded and filled it.
        let _ = PREVIOUS.set(unsafe { previous.assume_init() });
        // SAFETY: all zeros is a valid `sigaction`: no handler, no flags, an empty mask.
        let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        // The alternative stack, where the thread has one: the fault may have come deep in recursion.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for and does only what a handler may do.
        if unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The handler.
    extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system passes a valid `info` to a handler installed with SA_SIGINFO.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
        // A positive code comes from the system about an address; the others were sent by some process.
        if code > 0 {
            for slot in all() {
                if let Some(end) = slot.end_if_around(address) {
                    slot.damaged.store(true, Ordering::SeqCst);
                    if put_zeros(address, end) {
                        return;
                    }
                }
            }
        }
        pass_on(signal, info, context);
    }

    /// Maps zeros from the page of `address` to the end of its region. Whatever comes later in a file that became
    /// shorter is gone as well, and one mapping for the rest keeps the process far from the system's limit of them.
    fn put_zeros(address: usize, end: usize) -> bool {
        let page = PAGE.load(Ordering::Acquire);
        let start = address / page * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the pages lie in a region that its guard keeps mapped, so no other mapping is replaced; its owner
        // unmaps them with the rest of the region. A read of plain bytes goes on with zeros.
        let mapped =
            unsafe { libc::mmap(std::ptr::with_exposed_provenance_mut(start), end - start, protection, flags, -1, 0) };
        mapped != libc::MAP_FAILED
    }

    /// Does what would have been done without us.
    fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let previous = PREVIOUS.get();
        let action = previous.map_or(libc::SIG_DFL, |p| p.sa_sigaction);
        if action == libc::SIG_DFL || action == libc::SIG_IGN {
            // SAFETY: restoring the default needs no memory; the raised signal waits until this handler returns, and
            // a faulting instruction would raise it again by itself.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        } else if previous.is_some_and(|p| p.sa_flags & libc::SA_SIGINFO != 0) {
            // SAFETY: the action was installed with SA_SIGINFO, so it is a function of these three arguments.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(action) };
            handler(signal, info, context);
        } else {
            // SAFETY: the action is neither default nor ignore and has no SA_SIGINFO: a function of one argument.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(action) };
            handler(signal);
        }
    }
}

/// Elsewhere the system does not let a mapped file become shorter.
#[cfg(not(unix))]
fn install() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_address_and_reused() {
        let bytes = [0u8; 64];
        let start = bytes.as_ptr().addr();
        let guard = Guard::new(bytes.as_ptr(), 64).unwrap();
        let slot = guard.slot;
        assert_eq!(slot.end_if_around(start), Some(start + 64));
        assert_eq!(slot.end_if_around(start + 63), Some(start + 64));
        assert_eq!(slot.end_if_around(start + 64), None);
        assert!(!guard.damaged());
        drop(guard);
        assert_eq!(slot.end_if_around(start), None);
    }

    #[test]
    fn a_slot_that_is_being_changed_guards_nothing() {
        let guard = Guard::new([0u8; 8].as_ptr(), 8).unwrap();
        let start = guard.slot.start.load(Ordering::SeqCst);
        guard.slot.generation.fetch_add(1, Ordering::SeqCst);
        assert_eq!(guard.slot.end_if_around(start), None);
        guard.slot.generation.fetch_add(1, Ordering::SeqCst);
        assert_eq!(guard.slot.end_if_around(start), Some(start + 8));
    }

    /// A fault outside every region must still end the process with SIGBUS. The test runs itself as a child for it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_fault_outside_every_region_ends_the_process_as_before() {
        use std::os::unix::process::ExitStatusExt;
        const CHILD: &str = "WINDLASS_TEST_FAULT_OUTSIDE";
        if std::env::var_os(CHILD).is_some() {
            let _guard = Guard::new([0u8; 8].as_ptr(), 8).unwrap();
            let file = tempfile::tempfile().unwrap();
            file.set_len(8192).unwrap();
            // SAFETY: nobody else knows the file; the fault is what the test is about.
            let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            file.set_len(0).unwrap();
            println!("read {}", map[4096]);
            return;
        }
        let name = "storage::guard::tests::a_fault_outside_every_region_ends_the_process_as_before";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(libc::SIGBUS), "{child:?}");
        assert!(!String::from_utf8_lossy(&child.stdout).contains("read "));
    }
}

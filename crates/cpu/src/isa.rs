//! Which instruction set kernels run on.

use std::cell::Cell;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};

/// Instruction sets that kernels are compiled for, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the target has without asking; NEON on arm64.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL; products of bytes are those of AVX2.
    Avx512,
    /// AVX-512 with dot products of bytes.
    Avx512Vnni,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Level; 4] = [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Vnni];
}

thread_local! {
    static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
}

/// The best level of this machine, or a lower one that [`with_level`] asks for.
pub fn level() -> Level {
    FORCED.get().map_or(best(), |forced| forced.min(best()))
}

/// Has kernels that `work` calls from this thread run with at most this level, on all threads of their session: to test
/// each path on one machine.
pub fn with_level<R>(level: Level, work: impl FnOnce() -> R) -> R {
    let before = FORCED.replace(Some(level));
    let result = work();
    FORCED.set(before);
    result
}

fn best() -> Level {
    static BEST: OnceLock<Level> = OnceLock::new();
    *BEST.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")) {
        return Level::Portable;
    }
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512, is_x86_feature_detected!("avx512vnni")) {
        (true, true) => Level::Avx512Vnni,
        (true, false) => Level::Avx512,
        _ => Level::Avx2,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// A function that is generic in the vectors it uses. `run` must be `#[inline(always)]`, and so must all that it calls
/// with vectors: they become part of a function that is compiled for the instruction set.
pub(crate) trait Kernel {
    /// Whether it has dot products of bytes: then it runs with AVX-512 only where that has instructions for them.
    const DOTS: bool = false;

    /// # Safety
    /// The processor has the instructions of `S`; and what the kernel itself asks for.
    unsafe fn run<S: Simd>(self);
}

/// Runs `kernel` on the instruction set `level`.
///
/// # Safety
/// What the kernel asks for. `level` came from [`level`], so that the processor has it.
pub(crate) unsafe fn dispatch<K: Kernel>(level: Level, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    match level {
        Level::Portable => {}
        // SAFETY: the processor has the level, or a higher one; the caller vouches for the kernel.
        Level::Avx2 => return unsafe { Avx2::call(kernel) },
        // SAFETY: as above.
        Level::Avx512 if K::DOTS => return unsafe { Avx2::call(kernel) },
        // SAFETY: as above.
        Level::Avx512 | Level::Avx512Vnni => return unsafe { Avx512::call(kernel) },
    }
    let _ = level;
    // SAFETY: every processor has the portable instructions; the caller vouches for the kernel.
    unsafe { Portable::call(kernel) }
}

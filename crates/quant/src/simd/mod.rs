//! One body of plain Rust, compiled once per instruction set and chosen at run time.
//!
//! Bodies work on arrays of lanes (`[f32; 16]`), one block of values per lane, so that the compiler's vectors run across
//! blocks: each lane does exactly what the scalar encoder does, in the same order, and nothing is fused.

pub(crate) mod codes;

use std::cell::Cell;
use std::sync::OnceLock;

/// Instruction sets that bodies are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the target has without asking; NEON on arm64.
    Portable,
    /// AVX2 and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
}

thread_local! {
    static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
}

/// The best level of this machine, or a lower one that [`with_level`] asks for.
pub fn level() -> Level {
    static BEST: OnceLock<Level> = OnceLock::new();
    let best = *BEST.get_or_init(detect);
    FORCED.get().map_or(best, |forced| forced.min(best))
}

/// Runs `f` on this thread with at most this level, to test each path on one machine.
pub fn with_level<R>(level: Level, f: impl FnOnce() -> R) -> R {
    let before = FORCED.replace(Some(level));
    let result = f();
    FORCED.set(before);
    result
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    match (avx512, avx2) {
        (true, true) => Level::Avx512,
        (_, true) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// A number of turns that the compiler does not see: a loop over so many values becomes one of vectors. Where it sees 16 or 32, it
/// unrolls first, and finds few vectors in what is left.
#[inline(always)]
pub(crate) fn turns(count: usize) -> usize {
    std::hint::black_box(count)
}

/// Bytes between a value that is written and the memory that is asked for meanwhile.
const AHEAD: usize = 2048;

/// Asks for the memory that lies a little behind these values, which the caller goes on to write. A decoder that writes as
/// fast as memory takes it would otherwise wait for each line: hardware foresees no more than a page.
#[inline(always)]
pub(crate) fn ahead(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint reads nothing, and an address that is not mapped is passed over.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().wrapping_byte_add(AHEAD).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, AHEAD);
}

/// Defines a function whose body is compiled for every [`Level`] and dispatched on each call.
macro_rules! per_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
                fn avx512($($arg: $type),*) {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($arg: $type),*) {
                    body($($arg),*)
                }
                match $crate::simd::level() {
                    // SAFETY: `level` answers this only after detecting the features that the function enables.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use per_level;

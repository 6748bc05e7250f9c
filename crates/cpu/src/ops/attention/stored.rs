//! How a cache holds keys and values: the one place that knows.

use crate::simd::Simd;

/// A type of cache. Rows of `dim` values, a multiple of 16, lie one behind another.
pub(super) trait Stored: 'static {
    /// Bytes of a row.
    fn stride(dim: usize) -> usize;

    /// `S::ROWS` values of a row from `column` on, a multiple of their number.
    ///
    /// # Safety
    /// They are readable; the processor has the instructions of `S`.
    unsafe fn values<S: Simd>(row: *const u8, column: usize) -> S::F;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;
/// GGML's q8_0: for 32 values a scale in half precision, then their codes.
pub(super) struct Q8;

impl Stored for F32 {
    fn stride(dim: usize) -> usize {
        4 * dim
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(row: *const u8, column: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::load_float(row.cast::<f32>().add(column)) }
    }
}

impl Stored for F16 {
    fn stride(dim: usize) -> usize {
        2 * dim
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(row: *const u8, column: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::load_half(row.cast::<u16>().add(column)) }
    }
}

impl Stored for Bf16 {
    fn stride(dim: usize) -> usize {
        2 * dim
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(row: *const u8, column: usize) -> S::F {
        let mut words = [0u32; 16];
        // SAFETY: the trait's promise; the array has room for the widest vector.
        unsafe {
            let halves = row.cast::<u16>().add(column);
            for (i, word) in words.iter_mut().enumerate().take(S::ROWS) {
                *word = u32::from(halves.add(i).read_unaligned()) << 16;
            }
            S::load_float(words.as_ptr().cast())
        }
    }
}

impl Stored for Q8 {
    fn stride(dim: usize) -> usize {
        dim / 32 * 34
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(row: *const u8, column: usize) -> S::F {
        // SAFETY: the trait's promise; a vector has at most 16 values, which lie in one block.
        unsafe {
            let block = row.add(column / 32 * 34);
            let scale = S::half(S::splat32(i32::from(block.cast::<u16>().read_unaligned())));
            S::mul(scale, S::to_float(S::signed_bytes(block.add(2 + column % 32))))
        }
    }
}

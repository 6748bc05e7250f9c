//! Vectors that kernels are written with: registers of one, two or four lanes of 128 bits.
//!
//! Weights lie row after row. A tile of `ROWS` rows (one per 32-bit element of a vector) is read in pieces of 16 bytes:
//! lane `l` of vector `j` holds a piece of row `4 l + j`. Four such vectors, transposed within their lanes, have a row per
//! element, so that sums come out in the order of rows on every instruction set.

use crate::isa::Kernel;
use crate::math::fold;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// One instruction set.
///
/// # Safety of all functions
/// The processor has the instructions. Pointers are valid for the bytes that are named; they need no alignment.
pub(crate) trait Simd: Copy + 'static {
    /// Integers: bytes, 16-bit or 32-bit elements.
    type I: Copy;
    /// `ROWS` floats.
    type F: Copy;

    /// Lanes of 128 bits.
    const LANES: usize;
    /// 32-bit elements of a vector; rows of a tile.
    const ROWS: usize = 4 * Self::LANES;
    /// Most rows of activations that integer kernels keep in registers, next to two vectors of weights.
    const TILE: usize;
    /// The same for kernels of floats.
    const FLOAT_TILE: usize;

    /// Runs a kernel as a function of its own, compiled for these instructions.
    unsafe fn call<K: Kernel>(kernel: K);

    /// Lane `l` of vector `j`: 16 bytes at `at + (4 l + j) * stride`.
    unsafe fn pieces(at: *const u8, stride: usize) -> [Self::I; 4];
    /// Element `r`: 4 bytes at `at + r * stride`.
    unsafe fn dwords(at: *const u8, stride: usize) -> Self::I;
    /// The same 16 bytes in every lane.
    unsafe fn same_piece(at: *const u8) -> Self::I;
    /// A vector.
    unsafe fn load(at: *const u8) -> Self::I;
    /// `ROWS` bytes as 32-bit elements.
    unsafe fn bytes(at: *const u8) -> Self::I;
    /// `ROWS` signed bytes as 32-bit elements.
    unsafe fn signed_bytes(at: *const u8) -> Self::I;
    unsafe fn store(at: *mut u8, x: Self::I);
    /// The low bytes of 32-bit elements, one behind another.
    unsafe fn store_bytes(at: *mut u8, x: Self::I);
    /// Into the second cache, for what is needed later.
    unsafe fn prefetch_far(at: *const u8);
    unsafe fn prefetch(at: *const u8);

    unsafe fn splat8(x: u8) -> Self::I;
    unsafe fn splat32(x: i32) -> Self::I;
    unsafe fn and(x: Self::I, y: Self::I) -> Self::I;
    unsafe fn or(x: Self::I, y: Self::I) -> Self::I;
    unsafe fn xor(x: Self::I, y: Self::I) -> Self::I;
    /// Bytes, modulo 256.
    unsafe fn add8(x: Self::I, y: Self::I) -> Self::I;
    /// The low halves of products of 16-bit elements.
    unsafe fn mul16(x: Self::I, y: Self::I) -> Self::I;
    unsafe fn add32(x: Self::I, y: Self::I) -> Self::I;
    /// The larger of 32-bit elements, signed.
    unsafe fn max32(x: Self::I, y: Self::I) -> Self::I;
    /// 32-bit elements, at least `y`, minus it; 0 otherwise.
    unsafe fn sub32_or_zero(x: Self::I, y: Self::I) -> Self::I;
    /// 16-bit elements, shifted right by `n` bits; zeros come in.
    unsafe fn shr16(x: Self::I, n: u32) -> Self::I;
    /// 16-bit elements, shifted left.
    unsafe fn shl16(x: Self::I, n: u32) -> Self::I;
    /// 32-bit elements, shifted right; zeros come in.
    unsafe fn shr32(x: Self::I, n: u32) -> Self::I;
    /// 32-bit elements, shifted right; signs come in.
    unsafe fn sar32(x: Self::I, n: u32) -> Self::I;
    /// 32-bit elements, shifted left.
    unsafe fn shl32(x: Self::I, n: u32) -> Self::I;
    /// Byte `i` of a lane: that of the same lane of `table` at the low four bits of byte `i` of `index`; zero where its top
    /// bit is set.
    unsafe fn shuffle(table: Self::I, index: Self::I) -> Self::I;
    /// `base`, with the bits of `value` set in bytes where `flags` and `bit` have bits in common.
    unsafe fn or_where(base: Self::I, flags: Self::I, bit: Self::I, value: Self::I) -> Self::I;

    /// `base`, but `x - y` in bytes where `flags` and `bit` have bits in common.
    unsafe fn minus_where(base: Self::I, flags: Self::I, bit: Self::I, x: Self::I, y: Self::I) -> Self::I;
    /// 32-bit elements of `table`, numbered by those of `index`.
    unsafe fn gather32(table: *const u32, index: Self::I) -> Self::I;
    /// 64-bit elements of `table`, numbered by those of `index`.
    unsafe fn gather64(table: *const u64, index: Self::I) -> Self::I;

    /// Within lanes: first byte of `x`, of `y`, second of `x`, of `y`, to the eighth.
    unsafe fn low8(x: Self::I, y: Self::I) -> Self::I;
    /// Within lanes: ninth byte of `x`, of `y`, to the last.
    unsafe fn high8(x: Self::I, y: Self::I) -> Self::I;
    /// Within lanes: first 32-bit element of `x`, of `y`, second of `x`, of `y`.
    unsafe fn low32(x: Self::I, y: Self::I) -> Self::I;
    /// Within lanes: third of `x`, of `y`, fourth of `x`, of `y`.
    unsafe fn high32(x: Self::I, y: Self::I) -> Self::I;
    /// Within lanes: low halves of `x` and `y`.
    unsafe fn low64(x: Self::I, y: Self::I) -> Self::I;
    /// Within lanes: high halves of `x` and `y`.
    unsafe fn high64(x: Self::I, y: Self::I) -> Self::I;

    /// `sums` plus, in each 32-bit element, the products of four unsigned with four signed bytes. Without `WIDE` the
    /// unsigned ones are at most 127.
    unsafe fn dot<const WIDE: bool>(sums: Self::I, unsigned: Self::I, signed: Self::I) -> Self::I;

    unsafe fn to_float(x: Self::I) -> Self::F;
    unsafe fn as_float(x: Self::I) -> Self::F;
    unsafe fn as_int(x: Self::F) -> Self::I;
    /// The half-precision floats in the low 16 bits of 32-bit elements.
    unsafe fn half(x: Self::I) -> Self::F;
    unsafe fn zero() -> Self::F;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load_float(at: *const f32) -> Self::F;
    unsafe fn store_float(at: *mut f32, x: Self::F);
    /// Half-precision floats, one after the other.
    unsafe fn load_half(at: *const u16) -> Self::F;
    /// Halves of single-precision floats (BF16), one after the other.
    unsafe fn load_bf16(at: *const u16) -> Self::F;
    /// The values that 32-bit elements, less than 16, number.
    unsafe fn pick(values: &[f32; 16], index: Self::I) -> Self::F;
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sqrt(x: Self::F) -> Self::F;
    /// -1, 0 or 1.
    unsafe fn sign(x: Self::F) -> Self::F;
    /// `x * y + z`, rounded once where the instruction set can.
    unsafe fn fma(x: Self::F, y: Self::F, z: Self::F) -> Self::F;
}

/// Four vectors of pieces to four vectors with a row per element: the first four bytes of each piece, the next four, ...
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn transpose<S: Simd>(x: [S::I; 4]) -> [S::I; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (S::low32(x[0], x[1]), S::low32(x[2], x[3]));
        let (c, d) = (S::high32(x[0], x[1]), S::high32(x[2], x[3]));
        [S::low64(a, b), S::high64(a, b), S::low64(c, d), S::high64(c, d)]
    }
}

/// The sums of the four 32-bit elements of each piece, a row per element.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn sum_pieces<S: Simd>(x: [S::I; 4]) -> S::I {
    // SAFETY: the caller's promise.
    unsafe {
        let a = S::add32(S::low32(x[0], x[1]), S::high32(x[0], x[1]));
        let b = S::add32(S::low32(x[2], x[3]), S::high32(x[2], x[3]));
        S::add32(S::low64(a, b), S::high64(a, b))
    }
}

/// The sum of the elements of each vector; `N` is 1 or a multiple of 4.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn sum_elements<S: Simd, const N: usize>(x: [S::F; N]) -> [f32; N] {
    let mut sums = [0.0; N];
    // SAFETY: the caller's promise; the buffer has room for the widest vector.
    unsafe {
        if N == 1 {
            let mut each = [0.0f32; 16];
            S::store_float(each.as_mut_ptr(), x[0]);
            sums[0] = fold!(each, a, b => a + b);
            return sums;
        }
        let add = |x: S::I, y: S::I| S::as_int(S::add(S::as_float(x), S::as_float(y)));
        for (sums, x) in sums.as_chunks_mut::<4>().0.iter_mut().zip(x.as_chunks::<4>().0) {
            // Lane `l` of the result has sums of lane `l` of each vector.
            let x = [S::as_int(x[0]), S::as_int(x[1]), S::as_int(x[2]), S::as_int(x[3])];
            let a = add(S::low32(x[0], x[1]), S::high32(x[0], x[1]));
            let b = add(S::low32(x[2], x[3]), S::high32(x[2], x[3]));
            let mut lanes = [[0.0f32; 4]; 4];
            S::store_float(lanes.as_mut_ptr().cast(), S::as_float(add(S::low64(a, b), S::high64(a, b))));
            for lane in lanes.iter().take(S::LANES) {
                for (sum, v) in sums.iter_mut().zip(lane) {
                    *sum += v;
                }
            }
        }
    }
    sums
}

/// An address that compilers know nothing of. Otherwise they keep the distances of all rows of a tile, more than there are
/// registers, where four addresses and two distances do.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)]
fn opaque(mut at: *const u8) -> *const u8 {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
    at
}

/// Pieces of the rows of a tile; `stride` is the length of a row.
///
/// # Safety
/// 16 bytes are readable at `at` in each of the tile's rows; the processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn tile_pieces<S: Simd>(at: *const u8, stride: usize) -> [S::I; 4] {
    // SAFETY: the caller's promise.
    unsafe { S::pieces(at, stride) }
}

//! AVX-512, with dot products of bytes for kernels that have some.

use std::arch::x86_64::*;

use super::{Simd, opaque};
use crate::isa::Kernel;

/// Four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline(never)]
unsafe fn call_vnni<K: Kernel>(kernel: K) {
    // SAFETY: the caller has checked for the features of this function.
    unsafe { kernel.run::<Avx512>() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline(never)]
unsafe fn call_plain<K: Kernel>(kernel: K) {
    // SAFETY: the caller has checked for the features of this function.
    unsafe { kernel.run::<Avx512>() }
}

// SAFETY of the blocks below: the trait's promise that the processor has the instructions and pointers are valid.
impl Simd for Avx512 {
    type I = __m512i;
    type F = __m512;

    const LANES: usize = 4;
    const TILE: usize = 7;
    const FLOAT_TILE: usize = 12;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: see above.
        unsafe { if K::DOTS { call_vnni(kernel) } else { call_plain(kernel) } }
    }

    #[inline(always)]
    unsafe fn pieces(at: *const u8, stride: usize) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let lanes = [at, opaque(at.add(4 * stride)), opaque(at.add(8 * stride)), opaque(at.add(12 * stride))];
            let mut pieces = [_mm512_setzero_si512(); 4];
            for (j, piece) in pieces.iter_mut().enumerate() {
                let x = _mm512_castsi128_si512(_mm_loadu_si128(lanes[0].add(j * stride).cast()));
                let x = _mm512_inserti32x4::<1>(x, _mm_loadu_si128(lanes[1].add(j * stride).cast()));
                let x = _mm512_inserti32x4::<2>(x, _mm_loadu_si128(lanes[2].add(j * stride).cast()));
                *piece = _mm512_inserti32x4::<3>(x, _mm_loadu_si128(lanes[3].add(j * stride).cast()));
            }
            pieces
        }
    }

    #[inline(always)]
    unsafe fn dwords(at: *const u8, stride: usize) -> __m512i {
        // SAFETY: see above; a tile spans less than 2^31 bytes.
        unsafe {
            let rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let offsets = _mm512_mullo_epi32(rows, _mm512_set1_epi32(stride as i32));
            _mm512_i32gather_epi32::<1>(offsets, at.cast())
        }
    }

    #[inline(always)]
    unsafe fn same_piece(at: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(at: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, x: __m512i) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(at.cast(), x) }
    }

    #[inline(always)]
    unsafe fn store_bytes(at: *mut u8, x: __m512i) {
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(at.cast(), _mm512_cvtepi32_epi8(x)) }
    }

    #[inline(always)]
    unsafe fn prefetch_far(at: *const u8) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn splat8(x: u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi8(x as i8) }
    }

    #[inline(always)]
    unsafe fn splat32(x: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn and(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(x, y) }
    }

    #[inline(always)]
    unsafe fn or(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(x, y) }
    }

    #[inline(always)]
    unsafe fn xor(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_xor_si512(x, y) }
    }

    #[inline(always)]
    unsafe fn add8(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_add_epi8(x, y) }
    }

    #[inline(always)]
    unsafe fn mul16(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_mullo_epi16(x, y) }
    }

    #[inline(always)]
    unsafe fn add32(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_add_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn max32(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_max_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn sub32_or_zero(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sub_epi32(_mm512_max_epi32(x, y), y) }
    }

    #[inline(always)]
    unsafe fn shr16(x: __m512i, n: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srlv_epi16(x, _mm512_set1_epi16(n as i16)) }
    }

    #[inline(always)]
    unsafe fn shl16(x: __m512i, n: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sllv_epi16(x, _mm512_set1_epi16(n as i16)) }
    }

    #[inline(always)]
    unsafe fn shr32(x: __m512i, n: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srlv_epi32(x, _mm512_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    unsafe fn sar32(x: __m512i, n: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srav_epi32(x, _mm512_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shl32(x: __m512i, n: u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sllv_epi32(x, _mm512_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shuffle(table: __m512i, index: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_shuffle_epi8(table, index) }
    }

    #[inline(always)]
    unsafe fn or_where(base: __m512i, flags: __m512i, bit: __m512i, value: __m512i) -> __m512i {
        // SAFETY: see above. The bits of `value` are clear in `base`, so that a sum is the same as `or`.
        unsafe { _mm512_mask_add_epi8(base, _mm512_test_epi8_mask(flags, bit), base, value) }
    }

    #[inline(always)]
    unsafe fn minus_where(base: __m512i, flags: __m512i, bit: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_mask_sub_epi8(base, _mm512_test_epi8_mask(flags, bit), x, y) }
    }

    #[inline(always)]
    unsafe fn gather32(table: *const u32, index: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_i32gather_epi32::<4>(index, table.cast()) }
    }

    #[inline(always)]
    unsafe fn gather64(table: *const u64, index: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_i64gather_epi64::<8>(index, table.cast()) }
    }

    #[inline(always)]
    unsafe fn low8(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_unpacklo_epi8(x, y) }
    }

    #[inline(always)]
    unsafe fn high8(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_unpackhi_epi8(x, y) }
    }

    #[inline(always)]
    unsafe fn low32(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_unpacklo_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn high32(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_unpackhi_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn low64(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_unpacklo_epi64(x, y) }
    }

    #[inline(always)]
    unsafe fn high64(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_unpackhi_epi64(x, y) }
    }

    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: __m512i, unsigned: __m512i, signed: __m512i) -> __m512i {
        // SAFETY: see above; kernels that call this say so.
        unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
    }

    #[inline(always)]
    unsafe fn to_float(x: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn as_float(x: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_castsi512_ps(x) }
    }

    #[inline(always)]
    unsafe fn as_int(x: __m512) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_castps_si512(x) }
    }

    #[inline(always)]
    unsafe fn half(x: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_float(at: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn load_half(at: *const u16) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast())))) }
    }

    #[inline(always)]
    unsafe fn pick(values: &[f32; 16], index: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_permutexvar_ps(index, _mm512_loadu_ps(values.as_ptr())) }
    }

    #[inline(always)]
    unsafe fn store_float(at: *mut f32, x: __m512) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(at, x) }
    }

    #[inline(always)]
    unsafe fn add(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn mul(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn sub(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn div(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_div_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn sqrt(x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sqrt_ps(x) }
    }

    #[inline(always)]
    unsafe fn sign(x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let (zero, one) = (_mm512_setzero_ps(), _mm512_set1_ps(1.0));
            let up = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, zero), one);
            _mm512_sub_ps(up, _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, zero), one))
        }
    }

    #[inline(always)]
    unsafe fn fma(x: __m512, y: __m512, z: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(x, y, z) }
    }
}

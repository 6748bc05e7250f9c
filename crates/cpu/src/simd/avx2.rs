//! AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use super::{Simd, opaque};
use crate::isa::Kernel;

/// Two lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
unsafe fn call<K: Kernel>(kernel: K) {
    // SAFETY: the caller has checked for the features of this function.
    unsafe { kernel.run::<Avx2>() }
}

// SAFETY of the blocks below: the trait's promise that the processor has the instructions and pointers are valid.
impl Simd for Avx2 {
    type I = __m256i;
    type F = __m256;

    const LANES: usize = 2;
    const TILE: usize = 3;
    const FLOAT_TILE: usize = 6;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: see above.
        unsafe { call(kernel) }
    }

    #[inline(always)]
    unsafe fn pieces(at: *const u8, stride: usize) -> [__m256i; 4] {
        // SAFETY: see above.
        unsafe {
            let lanes = [at, opaque(at.add(4 * stride))];
            let mut pieces = [_mm256_setzero_si256(); 4];
            for (j, piece) in pieces.iter_mut().enumerate() {
                let [low, high] = [lanes[0], lanes[1]];
                let low = _mm256_castsi128_si256(_mm_loadu_si128(low.add(j * stride).cast()));
                *piece = _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(high.add(j * stride).cast()));
            }
            pieces
        }
    }

    #[inline(always)]
    unsafe fn dwords(at: *const u8, stride: usize) -> __m256i {
        // SAFETY: see above; a tile spans less than 2^31 bytes.
        unsafe {
            let rows = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let offsets = _mm256_mullo_epi32(rows, _mm256_set1_epi32(stride as i32));
            _mm256_i32gather_epi32::<1>(at.cast(), offsets)
        }
    }

    #[inline(always)]
    unsafe fn same_piece(at: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(at: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, x: __m256i) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(at.cast(), x) }
    }

    #[inline(always)]
    unsafe fn store_bytes(at: *mut u8, x: __m256i) {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_shuffle_epi8(x, _mm256_set1_epi32(0x0c08_0400));
            let (first, second) = (_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            _mm_storel_epi64(at.cast(), _mm_unpacklo_epi32(first, second));
        }
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
    unsafe fn splat8(x: u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi8(x as i8) }
    }

    #[inline(always)]
    unsafe fn splat32(x: i32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn and(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_and_si256(x, y) }
    }

    #[inline(always)]
    unsafe fn or(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_or_si256(x, y) }
    }

    #[inline(always)]
    unsafe fn xor(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_xor_si256(x, y) }
    }

    #[inline(always)]
    unsafe fn add8(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_add_epi8(x, y) }
    }

    #[inline(always)]
    unsafe fn mul16(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_mullo_epi16(x, y) }
    }

    #[inline(always)]
    unsafe fn add32(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_add_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn max32(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_max_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn sub32_or_zero(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_sub_epi32(_mm256_max_epi32(x, y), y) }
    }

    #[inline(always)]
    unsafe fn shr16(x: __m256i, n: u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_srl_epi16(x, _mm_cvtsi32_si128(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shl16(x: __m256i, n: u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_sll_epi16(x, _mm_cvtsi32_si128(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shr32(x: __m256i, n: u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_srlv_epi32(x, _mm256_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    unsafe fn sar32(x: __m256i, n: u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_srav_epi32(x, _mm256_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shl32(x: __m256i, n: u32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_sllv_epi32(x, _mm256_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    unsafe fn shuffle(table: __m256i, index: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_shuffle_epi8(table, index) }
    }

    #[inline(always)]
    unsafe fn or_where(base: __m256i, flags: __m256i, bit: __m256i, value: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe {
            let clear = _mm256_cmpeq_epi8(_mm256_and_si256(flags, bit), _mm256_setzero_si256());
            _mm256_or_si256(base, _mm256_andnot_si256(clear, value))
        }
    }

    #[inline(always)]
    unsafe fn minus_where(base: __m256i, flags: __m256i, bit: __m256i, x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe {
            let clear = _mm256_cmpeq_epi8(_mm256_and_si256(flags, bit), _mm256_setzero_si256());
            _mm256_blendv_epi8(_mm256_sub_epi8(x, y), base, clear)
        }
    }

    #[inline(always)]
    unsafe fn gather32(table: *const u32, index: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_i32gather_epi32::<4>(table.cast(), index) }
    }

    #[inline(always)]
    unsafe fn gather64(table: *const u64, index: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_i64gather_epi64::<8>(table.cast(), index) }
    }

    #[inline(always)]
    unsafe fn low8(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_unpacklo_epi8(x, y) }
    }

    #[inline(always)]
    unsafe fn high8(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_unpackhi_epi8(x, y) }
    }

    #[inline(always)]
    unsafe fn low32(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_unpacklo_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn high32(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_unpackhi_epi32(x, y) }
    }

    #[inline(always)]
    unsafe fn low64(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_unpacklo_epi64(x, y) }
    }

    #[inline(always)]
    unsafe fn high64(x: __m256i, y: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_unpackhi_epi64(x, y) }
    }

    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe {
            if WIDE {
                // Pairs of products of bytes may not fit 16 bits: even and odd bytes as 16-bit numbers.
                let bytes = _mm256_set1_epi16(255);
                let even = _mm256_and_si256(unsigned, bytes);
                let odd = _mm256_srli_epi16::<8>(unsigned);
                let even = _mm256_madd_epi16(even, _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(signed)));
                let odd = _mm256_madd_epi16(odd, _mm256_srai_epi16::<8>(signed));
                return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
            }
            let pairs = _mm256_maddubs_epi16(unsigned, signed);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn to_float(x: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn as_float(x: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_castsi256_ps(x) }
    }

    #[inline(always)]
    unsafe fn as_int(x: __m256) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_castps_si256(x) }
    }

    #[inline(always)]
    unsafe fn half(x: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
            // Packs within lanes; the first and the third quarter are the eight numbers in order.
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(low, low));
            _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
        }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_float(at: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn load_half(at: *const u16) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())))) }
    }

    #[inline(always)]
    unsafe fn pick(values: &[f32; 16], index: __m256i) -> __m256 {
        // SAFETY: see above; bit 3 of an index chooses the upper half.
        unsafe {
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values.as_ptr()), index);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values.as_ptr().add(8)), index);
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
        }
    }

    #[inline(always)]
    unsafe fn store_float(at: *mut f32, x: __m256) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(at, x) }
    }

    #[inline(always)]
    unsafe fn add(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn mul(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn sub(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_sub_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn div(x: __m256, y: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_div_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn sqrt(x: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_sqrt_ps(x) }
    }

    #[inline(always)]
    unsafe fn sign(x: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let (zero, one) = (_mm256_setzero_ps(), _mm256_set1_ps(1.0));
            let up = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, zero), one);
            _mm256_sub_ps(up, _mm256_and_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, zero), one))
        }
    }

    #[inline(always)]
    unsafe fn fma(x: __m256, y: __m256, z: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(x, y, z) }
    }
}

//! Plain Rust on 128 bits, which compilers turn into the vectors of the target (NEON on arm64).

use windlass_quant::float::f16_to_f32;

use super::Simd;
use crate::isa::Kernel;

/// One lane.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type I = [u8; 16];
type F = [f32; 4];

#[inline(always)]
fn words(x: I) -> [u32; 4] {
    let (x, _) = x.as_chunks::<4>();
    [0, 1, 2, 3].map(|i| u32::from_le_bytes(x[i]))
}

#[inline(always)]
fn from_words(x: [u32; 4]) -> I {
    let mut bytes = [0; 16];
    for (to, from) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(x) {
        *to = from.to_le_bytes();
    }
    bytes
}

#[inline(always)]
fn each8(x: I, y: I, f: impl Fn(u8, u8) -> u8) -> I {
    std::array::from_fn(|i| f(x[i], y[i]))
}

#[inline(always)]
fn each16(x: I, f: impl Fn(u16) -> u16) -> I {
    let mut bytes = x;
    for pair in bytes.as_chunks_mut::<2>().0 {
        *pair = f(u16::from_le_bytes(*pair)).to_le_bytes();
    }
    bytes
}

#[inline(always)]
fn each32(x: I, f: impl Fn(u32) -> u32) -> I {
    from_words(words(x).map(f))
}

// SAFETY of the blocks below: the trait's promise that pointers are valid.
impl Simd for Portable {
    type I = I;
    type F = F;

    const LANES: usize = 1;
    const TILE: usize = 4;
    const FLOAT_TILE: usize = 4;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) {
        // SAFETY: there is no instruction that could be missing; the caller vouches for the kernel.
        unsafe { kernel.run::<Portable>() }
    }

    #[inline(always)]
    unsafe fn pieces(at: *const u8, stride: usize) -> [I; 4] {
        let mut pieces = [[0; 16]; 4];
        for (j, piece) in pieces.iter_mut().enumerate() {
            // SAFETY: see above.
            *piece = unsafe { at.add(j * stride).cast::<I>().read_unaligned() };
        }
        pieces
    }

    #[inline(always)]
    unsafe fn dwords(at: *const u8, stride: usize) -> I {
        // SAFETY: see above.
        from_words([0, 1, 2, 3].map(|r| unsafe { at.add(r * stride).cast::<u32>().read_unaligned() }))
    }

    #[inline(always)]
    unsafe fn same_piece(at: *const u8) -> I {
        // SAFETY: see above.
        unsafe { at.cast::<I>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> I {
        // SAFETY: see above.
        unsafe { at.cast::<I>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> I {
        // SAFETY: see above.
        let bytes = unsafe { at.cast::<[u8; 4]>().read_unaligned() };
        from_words(bytes.map(u32::from))
    }

    #[inline(always)]
    unsafe fn signed_bytes(at: *const u8) -> I {
        // SAFETY: see above.
        let bytes = unsafe { at.cast::<[u8; 4]>().read_unaligned() };
        from_words(bytes.map(|byte| byte as i8 as i32 as u32))
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, x: I) {
        // SAFETY: see above.
        unsafe { at.cast::<I>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn store_bytes(at: *mut u8, x: I) {
        // SAFETY: see above.
        unsafe { at.cast::<[u8; 4]>().write_unaligned([x[0], x[4], x[8], x[12]]) }
    }

    #[inline(always)]
    unsafe fn prefetch_far(_at: *const u8) {}

    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}

    #[inline(always)]
    unsafe fn splat8(x: u8) -> I {
        [x; 16]
    }

    #[inline(always)]
    unsafe fn splat32(x: i32) -> I {
        from_words([x as u32; 4])
    }

    #[inline(always)]
    unsafe fn and(x: I, y: I) -> I {
        each8(x, y, |x, y| x & y)
    }

    #[inline(always)]
    unsafe fn or(x: I, y: I) -> I {
        each8(x, y, |x, y| x | y)
    }

    #[inline(always)]
    unsafe fn xor(x: I, y: I) -> I {
        each8(x, y, |x, y| x ^ y)
    }

    #[inline(always)]
    unsafe fn add8(x: I, y: I) -> I {
        each8(x, y, u8::wrapping_add)
    }

    #[inline(always)]
    unsafe fn mul16(x: I, y: I) -> I {
        let mut bytes = x;
        for (pair, y) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(y.as_chunks::<2>().0) {
            *pair = u16::from_le_bytes(*pair).wrapping_mul(u16::from_le_bytes(*y)).to_le_bytes();
        }
        bytes
    }

    #[inline(always)]
    unsafe fn add32(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words([0, 1, 2, 3].map(|i| x[i].wrapping_add(y[i])))
    }

    #[inline(always)]
    unsafe fn max32(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words(std::array::from_fn(|i| (x[i] as i32).max(y[i] as i32) as u32))
    }

    #[inline(always)]
    unsafe fn sub32_or_zero(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words([0, 1, 2, 3].map(|i| (x[i] as i32).max(y[i] as i32).wrapping_sub(y[i] as i32) as u32))
    }

    #[inline(always)]
    unsafe fn shr16(x: I, n: u32) -> I {
        each16(x, |x| x >> n)
    }

    #[inline(always)]
    unsafe fn shl16(x: I, n: u32) -> I {
        each16(x, |x| x << n)
    }

    #[inline(always)]
    unsafe fn shr32(x: I, n: u32) -> I {
        each32(x, |x| x >> n)
    }

    #[inline(always)]
    unsafe fn sar32(x: I, n: u32) -> I {
        each32(x, |x| (x as i32 >> n) as u32)
    }

    #[inline(always)]
    unsafe fn shl32(x: I, n: u32) -> I {
        each32(x, |x| x << n)
    }

    #[inline(always)]
    unsafe fn shuffle(table: I, index: I) -> I {
        index.map(|i| if i < 128 { table[usize::from(i & 15)] } else { 0 })
    }

    #[inline(always)]
    unsafe fn or_where(base: I, flags: I, bit: I, value: I) -> I {
        std::array::from_fn(|i| if flags[i] & bit[i] == 0 { base[i] } else { base[i] | value[i] })
    }

    #[inline(always)]
    unsafe fn minus_where(base: I, flags: I, bit: I, x: I, y: I) -> I {
        std::array::from_fn(|i| if flags[i] & bit[i] == 0 { base[i] } else { x[i].wrapping_sub(y[i]) })
    }

    #[inline(always)]
    unsafe fn gather32(table: *const u32, index: I) -> I {
        // SAFETY: see above.
        from_words(words(index).map(|i| unsafe { u32::from_le(table.add(i as usize).read_unaligned()) }))
    }

    #[inline(always)]
    unsafe fn gather64(table: *const u64, index: I) -> I {
        let [low, _, high, _] = words(index);
        // SAFETY: see above.
        let [low, high] = [low, high].map(|i| unsafe { u64::from_le(table.add(i as usize).read_unaligned()) });
        from_words([low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
    }

    #[inline(always)]
    unsafe fn low8(x: I, y: I) -> I {
        std::array::from_fn(|i| if i % 2 == 0 { x[i / 2] } else { y[i / 2] })
    }

    #[inline(always)]
    unsafe fn high8(x: I, y: I) -> I {
        std::array::from_fn(|i| if i % 2 == 0 { x[8 + i / 2] } else { y[8 + i / 2] })
    }

    #[inline(always)]
    unsafe fn low32(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words([x[0], y[0], x[1], y[1]])
    }

    #[inline(always)]
    unsafe fn high32(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words([x[2], y[2], x[3], y[3]])
    }

    #[inline(always)]
    unsafe fn low64(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words([x[0], x[1], y[0], y[1]])
    }

    #[inline(always)]
    unsafe fn high64(x: I, y: I) -> I {
        let (x, y) = (words(x), words(y));
        from_words([x[2], x[3], y[2], y[3]])
    }

    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sums: I, unsigned: I, signed: I) -> I {
        let mut sums = words(sums);
        for (i, sum) in sums.iter_mut().enumerate() {
            for at in 4 * i..4 * i + 4 {
                let product = i32::from(unsigned[at]) * i32::from(signed[at] as i8);
                *sum = sum.wrapping_add(product as u32);
            }
        }
        from_words(sums)
    }

    #[inline(always)]
    unsafe fn to_float(x: I) -> F {
        words(x).map(|x| x as i32 as f32)
    }

    #[inline(always)]
    unsafe fn as_float(x: I) -> F {
        words(x).map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn as_int(x: F) -> I {
        from_words(x.map(f32::to_bits))
    }

    #[inline(always)]
    unsafe fn half(x: I) -> F {
        words(x).map(|x| f16_to_f32(x as u16))
    }

    #[inline(always)]
    unsafe fn zero() -> F {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load_float(at: *const f32) -> F {
        // SAFETY: see above.
        unsafe { at.cast::<F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_float(at: *mut f32, x: F) {
        // SAFETY: see above.
        unsafe { at.cast::<F>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn load_half(at: *const u16) -> F {
        // SAFETY: see above.
        let halves = unsafe { at.cast::<[u16; 4]>().read_unaligned() };
        halves.map(f16_to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> F {
        // SAFETY: see above.
        let halves = unsafe { at.cast::<[u16; 4]>().read_unaligned() };
        halves.map(|half| f32::from_bits(u32::from(half) << 16))
    }

    #[inline(always)]
    unsafe fn pick(values: &[f32; 16], index: I) -> F {
        words(index).map(|i| values[i as usize & 15])
    }

    #[inline(always)]
    unsafe fn add(x: F, y: F) -> F {
        std::array::from_fn(|i| x[i] + y[i])
    }

    #[inline(always)]
    unsafe fn mul(x: F, y: F) -> F {
        std::array::from_fn(|i| x[i] * y[i])
    }

    #[inline(always)]
    unsafe fn sub(x: F, y: F) -> F {
        std::array::from_fn(|i| x[i] - y[i])
    }

    #[inline(always)]
    unsafe fn div(x: F, y: F) -> F {
        std::array::from_fn(|i| x[i] / y[i])
    }

    #[inline(always)]
    unsafe fn sqrt(x: F) -> F {
        std::array::from_fn(|i| x[i].sqrt())
    }

    #[inline(always)]
    unsafe fn sign(x: F) -> F {
        std::array::from_fn(|i| f32::from(x[i] > 0.0) - f32::from(x[i] < 0.0))
    }

    #[inline(always)]
    unsafe fn fma(x: F, y: F, z: F) -> F {
        // Without the instruction a fused product is a slow call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            std::array::from_fn(|i| x[i].mul_add(y[i], z[i]))
        } else {
            std::array::from_fn(|i| x[i] * y[i] + z[i])
        }
    }
}

//! What the encoders of 32 values share: extremes, rounding, and how codes of 4 and 5 bits lie in bytes.

use super::lanes::LANES;

/// Values of a block of the simplest schemes, and of a group of others.
pub(super) const BLOCK: usize = 32;

/// 1.5 * 2^23: a float in steps of one, whose low bits are an integer in two's complement.
const INTEGERS: f32 = 12_582_912.0;

/// The low byte of a float that holds a whole number; anything not finite gives 0 or a harmless code.
#[inline(always)]
pub(super) fn whole_to_byte(value: f32) -> u8 {
    (value + INTEGERS).to_bits() as u8
}

/// The least and the greatest value; not-a-number is passed over.
#[inline(always)]
pub(super) fn extremes(x: &[f32; BLOCK]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::MAX; BLOCK], [f32::MIN; BLOCK]);
    for i in 0..BLOCK {
        low[i] = if x[i] < low[i] { x[i] } else { low[i] };
        high[i] = if x[i] > high[i] { x[i] } else { high[i] };
    }
    let min = reduce(low, |a, b| if b < a { b } else { a });
    let max = reduce(high, |a, b| if b > a { b } else { a });
    // The sign of a zero is that of the first one, and the minimum is stored with its sign.
    let min = if min == 0.0 { first(x, 0.0) } else { min };
    let max = if max == 0.0 && min == 0.0 { min } else { max };
    (min, max)
}

/// The first of the values that are largest in magnitude, with its sign; 0 when all are zero or not a number.
#[inline(always)]
pub(super) fn first_largest(x: &[f32; BLOCK]) -> f32 {
    let (mut low, mut high) = ([0.0; BLOCK], [0.0; BLOCK]);
    for i in 0..BLOCK {
        low[i] = if x[i] < 0.0 { -x[i] } else { 0.0 };
        high[i] = if x[i] > 0.0 { x[i] } else { 0.0 };
    }
    let low = reduce(low, |a, b| if b > a { b } else { a });
    let high = reduce(high, |a, b| if b > a { b } else { a });
    if high > low {
        high
    } else if high < low {
        -low
    } else if high == 0.0 {
        0.0
    } else {
        first(x, high)
    }
}

/// The largest magnitude; not-a-number is passed over.
#[inline(always)]
pub(super) fn largest_magnitude<const N: usize>(x: &[f32; N]) -> f32 {
    let mut lanes = [0.0; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] = if x[i].abs() > lanes[i] { x[i].abs() } else { lanes[i] };
        }
    }
    reduce(lanes, |a, b| if b > a { b } else { a })
}

/// The first value of this magnitude.
#[cold]
fn first(x: &[f32; BLOCK], magnitude: f32) -> f32 {
    x.iter().copied().find(|v| v.abs() == magnitude).unwrap_or(magnitude)
}

/// Halves the lanes until one is left; exact for a minimum or maximum of numbers.
#[inline(always)]
fn reduce<const N: usize>(mut lanes: [f32; N], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `1 / scale`, or 0.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Low four bits: value `j` in the low half of byte `j`, value `j + 16` in its high half; 16 bytes.
#[inline(always)]
pub(super) fn pack_nibbles(codes: &[u8; BLOCK], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(BLOCK / 2);
    for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
        *byte = low & 15 | high << 4;
    }
}

/// Bit `i` is the fifth bit of code `i`; 4 bytes.
#[inline(always)]
pub(super) fn pack_fifth(codes: &[u8; BLOCK], bytes: &mut [u8]) {
    for (byte, codes) in bytes.iter_mut().zip(codes.as_chunks::<8>().0) {
        let fifths = u64::from_le_bytes(*codes) >> 4 & 0x0101_0101_0101_0101;
        // The product's top byte holds the low bit of byte `i` at bit `i`.
        *byte = (fifths.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
}

/// Codes of five bits: the string of fifth bits lies at `at`, the low four bits after it.
#[inline(always)]
pub(super) fn unpack_five<const N: usize>(block: &[u8; N], at: usize) -> [u8; BLOCK] {
    let fifths = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let mut codes = [0; BLOCK];
    for j in 0..BLOCK / 2 {
        let low = block[at + 4 + j];
        codes[j] = low & 15 | ((fifths >> j & 1) << 4) as u8;
        codes[j + 16] = low >> 4 | ((fifths >> (j + 16) & 1) << 4) as u8;
    }
    codes
}

/// A half of a block, as `f32`.
#[inline(always)]
pub(super) fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    crate::float::f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Stores a value as a half.
#[inline(always)]
pub(super) fn put_half<const N: usize>(block: &mut [u8; N], at: usize, value: f32) {
    let [low, high] = crate::float::f32_to_f16_bits(value).to_le_bytes();
    (block[at], block[at + 1]) = (low, high);
}

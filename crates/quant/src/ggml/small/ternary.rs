//! TQ1_0 and TQ2_0: -1, 0 or 1 times a scale; five codes to a byte, or four.

use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, blocks};
use crate::ggml::codes::{half_at, inverse, largest_magnitude, put_half, whole_to_byte};
use crate::simd::{per_level, turns};

const BLOCK: usize = 256;
const BYTES1: usize = 48 + 4 + 2;
const BYTES2: usize = 64 + 2;

pub(super) static TQ1_0: BlockScheme = BlockScheme {
    name: "tq1_0",
    grid: Grid::Lattice { bits: 1.6875 },
    block: BLOCK,
    planes: &blocks(BYTES1),
    error_ceiling: 1.0,
    encode: Encode::Plain(encode1),
    decode: decode1,
};

pub(super) static TQ2_0: BlockScheme = BlockScheme {
    name: "tq2_0",
    grid: Grid::Lattice { bits: 2.0625 },
    block: BLOCK,
    planes: &blocks(BYTES2),
    error_ceiling: 1.0,
    encode: Encode::Plain(encode2),
    decode: decode2,
};

/// The scale, and codes 0, 1 and 2.
#[inline(always)]
fn quantize(x: &[f32; BLOCK]) -> (f32, [u8; BLOCK]) {
    let scale = largest_magnitude(x);
    let inverse = inverse(scale);
    let mut codes = [0; BLOCK];
    for i in 0..BLOCK {
        codes[i] = whole_to_byte((x[i] * inverse).round() + 1.0).min(2);
    }
    (scale, codes)
}

/// How the bytes of TQ1_0 are cut: first byte, bytes, first value, and codes to a byte. Code `n` of byte `m` is value
/// `first + n * bytes + m`.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

const POWERS_OF_3: [u8; 5] = [1, 3, 9, 27, 81];

per_level! {
    fn encode1(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES1>().0) {
            let (scale, codes) = quantize(x);
            put_half(block, 52, scale);
            for (at, width, first, count) in RUNS {
                for m in 0..width {
                    let mut number = 0u16;
                    for n in 0..5 {
                        number = number * 3 + if n < count { u16::from(codes[first + n * width + m]) } else { 0 };
                    }
                    // As a fraction of 243 in 256ths, rounded up, so that multiplying by 3 brings out digit by digit.
                    block[at + m] = (u32::from(number) * 256).div_ceil(243) as u8;
                }
            }
        }
    }
}

per_level! {
    fn decode1(bytes: &[u8], values: &mut [f32]) {
        let n = turns(16);
        for (block, out) in bytes.as_chunks::<BYTES1>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 52);
            let (long, short) = out.split_at_mut(240);
            for (out, power) in long[..160].as_chunks_mut::<32>().0.iter_mut().zip(POWERS_OF_3) {
                digits(&block[..n], power, scale, &mut out[..n]);
                digits(&block[16..][..n], power, scale, &mut out[16..][..n]);
            }
            for (out, power) in long[160..].as_chunks_mut::<16>().0.iter_mut().zip(POWERS_OF_3) {
                digits(&block[32..][..n], power, scale, &mut out[..n]);
            }
            for (out, power) in short.as_chunks_mut::<4>().0.iter_mut().zip(POWERS_OF_3) {
                digits(&block[48..52], power, scale, out);
            }
        }
    }
}

/// The value of one digit of each byte.
#[inline(always)]
fn digits(bytes: &[u8], power: u8, scale: f32, out: &mut [f32]) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
        *out = (f32::from(digit) - 1.0) * scale;
    }
}

per_level! {
    fn encode2(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES2>().0) {
            let (scale, codes) = quantize(x);
            put_half(block, 64, scale);
            for half in 0..2 {
                for m in 0..32 {
                    let code = |n: usize| codes[half * 128 + n * 32 + m] << (2 * n);
                    block[half * 32 + m] = code(0) | code(1) | code(2) | code(3);
                }
            }
        }
    }
}

per_level! {
    fn decode2(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES2>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 64);
            for half in 0..2 {
                for n in 0..4 {
                    for m in 0..32 {
                        let code = block[half * 32 + m] >> (2 * n) & 3;
                        out[half * 128 + n * 32 + m] = (f32::from(code) - 1.0) * scale;
                    }
                }
            }
        }
    }
}

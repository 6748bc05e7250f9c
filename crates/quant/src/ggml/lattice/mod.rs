//! Codes that are points of a lattice: 8 or 4 values at a time from a table of good patterns.

use crate::SchemeRef;

pub mod grids;
mod iq1;
mod iq2;
mod iq3;
mod magnitudes;
mod neighbours;
mod search;
mod ternary;

/// Values of a block.
const BLOCK: usize = 256;

pub(super) static SCHEMES: &[SchemeRef] =
    &[&iq1::IQ1_S, &iq1::IQ1_M, &iq2::IQ2_XXS, &iq2::IQ2_XS, &iq2::IQ2_S, &iq3::IQ3_XXS, &iq3::IQ3_S];

/// Bytes of ones where a bit is set.
static SPREAD: [u64; 256] = {
    let (mut spread, mut i) = ([0; 256], 0);
    while i < 256 * 8 {
        let (bits, bit) = (i / 8, i % 8);
        if bits >> bit & 1 == 1 {
            spread[bits] |= 0xff << (8 * bit);
        }
        i += 1;
    }
    spread
};

/// Eight coordinates of a lattice point, from 1 to 127, in two's complement; a set bit negates.
#[inline(always)]
fn signed(point: [u8; 8], signs: u8) -> [u8; 8] {
    let negated = SPREAD[usize::from(signs)];
    // No byte is 0, so that nothing is carried.
    ((u64::from_le_bytes(point) ^ negated) + (negated & 0x0101_0101_0101_0101)).to_le_bytes()
}

/// Values of a group: [`signed`] coordinates times a scale.
#[inline(always)]
fn put_signed(scale: f32, coordinates: &[u8], out: &mut [f32]) {
    for (out, coordinate) in out.iter_mut().zip(coordinates) {
        *out = scale * f32::from(*coordinate as i8);
    }
}

/// Signs of eight values from seven bits: their number is even.
#[inline(always)]
fn even_signs(bits: u32) -> u8 {
    EVEN[bits as usize & 127]
}

static EVEN: [u8; 128] = {
    let (mut even, mut bits) = ([0; 128], 0);
    while bits < 128u8 {
        even[bits as usize] = bits | ((bits.count_ones() & 1) << 7) as u8;
        bits += 1;
    }
    even
};

/// Seven signs of each of four points, and the step of their group in the top four bits.
#[inline(always)]
fn signs_and_step(signs: &[u8; 4], step: u8) -> u32 {
    let [a, b, c, d] = signs.map(|signs| u32::from(signs & 127));
    a | b << 7 | c << 14 | d << 21 | u32::from(step) << 28
}

/// Steps in nibbles, the first in the low one.
#[inline(always)]
fn put_steps(steps: &[u8], bytes: &mut [u8]) {
    for (byte, [low, high]) in bytes.iter_mut().zip(steps.as_chunks::<2>().0) {
        *byte = low | high << 4;
    }
}

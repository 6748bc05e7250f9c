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

/// Eight values: coordinates of lattice points times a scale; a set bit negates.
#[inline(always)]
fn put_signed(out: &mut [f32], point: [u8; 8], signs: u8, scale: f32) {
    for (j, (out, coordinate)) in out.iter_mut().zip(point).enumerate() {
        let sign = u32::from(signs >> j & 1) << 31;
        *out = f32::from_bits((scale * f32::from(coordinate)).to_bits() ^ sign);
    }
}

/// Signs of eight values from seven bits: their number is even.
#[inline(always)]
fn even_signs(bits: u32) -> u8 {
    let bits = bits as u8 & 127;
    bits | ((bits.count_ones() & 1) << 7) as u8
}

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

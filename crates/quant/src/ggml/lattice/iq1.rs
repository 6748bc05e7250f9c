//! IQ1_S and IQ1_M: points of -1, 0 and 1 from a table of 2048, moved by an eighth up or down.

use super::BLOCK;
use super::grids::IQ1_S as POINTS;
use crate::Grid;
use crate::float::f16_to_f32;
use crate::ggml::block::{BlockScheme, Encode, blocks};
use crate::ggml::codes::half_at;
use crate::simd::per_level;

const BYTES_S: usize = 2 + 32 + 16;
const BYTES_M: usize = 32 + 16 + 8;

pub(super) static IQ1_S: BlockScheme = BlockScheme {
    name: "iq1_s",
    grid: Grid::Lattice { bits: 1.5625 },
    block: BLOCK,
    planes: &blocks(BYTES_S),
    error_ceiling: 0.6,
    encode: Encode::ReadOnly,
    decode: decode_s,
};

pub(super) static IQ1_M: BlockScheme = BlockScheme {
    name: "iq1_m",
    grid: Grid::Lattice { bits: 1.75 },
    block: BLOCK,
    planes: &blocks(BYTES_M),
    error_ceiling: 0.6,
    encode: Encode::ReadOnly,
    decode: decode_m,
};

const SHIFT: f32 = 0.125;

#[inline(always)]
fn put(out: &mut [f32], index: usize, down: bool, scale: f32) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (out, coordinate) in out.iter_mut().zip(POINTS[index & 2047]) {
        *out = scale * (f32::from(coordinate) + shift);
    }
}

per_level! {
    fn decode_s(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_S>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let high = u16::from_le_bytes([block[34 + 2 * g], block[35 + 2 * g]]);
                let scale = scale * f32::from(2 * (high >> 12 & 7) + 1);
                for l in 0..4 {
                    let index = u16::from(block[2 + 4 * g + l]) | (high >> (3 * l) & 7) << 8;
                    put(&mut out[8 * l..8 * l + 8], usize::from(index), high & 0x8000 != 0, scale);
                }
            }
        }
    }
}

per_level! {
    fn decode_m(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_M>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let mut words = [0; 4];
            for (i, word) in words.iter_mut().enumerate() {
                *word = u16::from_le_bytes([block[48 + 2 * i], block[49 + 2 * i]]);
            }
            // The scale of the block lies in the top four bits of the words of group scales.
            let [a, b, c, d] = words.map(|word| word >> 12);
            let scale = f16_to_f32(a | b << 4 | c << 8 | d << 12);
            for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let scale = scale * f32::from(2 * (words[g / 4] >> (3 * (g % 4)) & 7) + 1);
                for l in 0..2 {
                    let high = block[32 + g] >> (4 * l);
                    let index = usize::from(block[2 * g + l]) | usize::from(high & 7) << 8;
                    put(&mut out[8 * l..8 * l + 8], index, high & 8 != 0, scale);
                }
            }
        }
    }
}

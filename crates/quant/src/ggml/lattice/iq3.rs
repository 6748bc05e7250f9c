//! IQ3_XXS and IQ3_S: points of four magnitudes, two to eight signs.

use super::grids::{IQ3_S as POINTS_S, IQ3_XXS as POINTS_XXS};
use super::{BLOCK, even_signs, put_signed};
use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, blocks};
use crate::ggml::codes::half_at;
use crate::simd::per_level;

const BYTES_XXS: usize = 2 + 64 + 32;
const BYTES_S: usize = 2 + 64 + 8 + 32 + 4;

pub(super) static IQ3_XXS: BlockScheme = BlockScheme {
    name: "iq3_xxs",
    grid: Grid::Lattice { bits: 3.0625 },
    block: BLOCK,
    planes: &blocks(BYTES_XXS),
    error_ceiling: 0.25,
    encode: Encode::ReadOnly,
    decode: decode_xxs,
};

pub(super) static IQ3_S: BlockScheme = BlockScheme {
    name: "iq3_s",
    grid: Grid::Lattice { bits: 3.4375 },
    block: BLOCK,
    planes: &blocks(BYTES_S),
    error_ceiling: 0.2,
    encode: Encode::ReadOnly,
    decode: decode_s,
};

#[inline(always)]
fn pair([a, b, c, d]: [u8; 4], [e, f, g, h]: [u8; 4]) -> [u8; 8] {
    [a, b, c, d, e, f, g, h]
}

per_level! {
    fn decode_xxs(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_XXS>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let (indices, signs) = block[2..].split_at(64);
            let groups = indices.as_chunks::<8>().0.iter().zip(signs.as_chunks::<4>().0);
            for ((indices, signs), out) in groups.zip(out.as_chunks_mut::<32>().0) {
                let signs = u32::from_le_bytes(*signs);
                let scale = scale * (0.5 + (signs >> 28) as f32) * 0.5;
                for l in 0..4 {
                    let point = |i: u8| POINTS_XXS[usize::from(i)];
                    let points = pair(point(indices[2 * l]), point(indices[2 * l + 1]));
                    put_signed(&mut out[8 * l..8 * l + 8], points, even_signs(signs >> (7 * l)), scale);
                }
            }
        }
    }
}

per_level! {
    fn decode_s(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_S>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let high = usize::from(block[66 + l / 4] >> (2 * (l % 4)));
                let first = POINTS_S[usize::from(block[2 + 2 * l]) | (high & 1) << 8];
                let second = POINTS_S[usize::from(block[3 + 2 * l]) | (high >> 1 & 1) << 8];
                let steps = block[106 + l / 8] >> (4 * (l / 4 % 2)) & 15;
                put_signed(out, pair(first, second), block[74 + l], scale * f32::from(1 + 2 * steps));
            }
        }
    }
}

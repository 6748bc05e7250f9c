//! IQ2_XXS, IQ2_XS and IQ2_S: points of eight magnitudes, with signs of their own.

use super::grids::{IQ2_S as POINTS_S, IQ2_XS as POINTS_XS, IQ2_XXS as POINTS_XXS};
use super::{BLOCK, even_signs, put_signed};
use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, blocks};
use crate::ggml::codes::half_at;
use crate::simd::per_level;

const BYTES_XXS: usize = 2 + 64;
const BYTES_XS: usize = 2 + 64 + 8;
const BYTES_S: usize = 2 + 32 + 32 + 8 + 8;

pub(super) static IQ2_XXS: BlockScheme = BlockScheme {
    name: "iq2_xxs",
    grid: Grid::Lattice { bits: 2.0625 },
    block: BLOCK,
    planes: &blocks(BYTES_XXS),
    error_ceiling: 0.45,
    encode: Encode::ReadOnly,
    decode: decode_xxs,
};

pub(super) static IQ2_XS: BlockScheme = BlockScheme {
    name: "iq2_xs",
    grid: Grid::Lattice { bits: 2.3125 },
    block: BLOCK,
    planes: &blocks(BYTES_XS),
    error_ceiling: 0.4,
    encode: Encode::ReadOnly,
    decode: decode_xs,
};

pub(super) static IQ2_S: BlockScheme = BlockScheme {
    name: "iq2_s",
    grid: Grid::Lattice { bits: 2.5625 },
    block: BLOCK,
    planes: &blocks(BYTES_S),
    error_ceiling: 0.4,
    encode: Encode::ReadOnly,
    decode: decode_s,
};

/// Scale of a group from the scale of its block and four bits.
#[inline(always)]
fn group_scale(scale: f32, bits: u32) -> f32 {
    scale * (0.5 + (bits & 15) as f32) * 0.25
}

per_level! {
    fn decode_xxs(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_XXS>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let groups = block[2..].as_chunks::<8>().0;
            for ([i0, i1, i2, i3, signs @ ..], out) in groups.iter().zip(out.as_chunks_mut::<32>().0) {
                let signs = u32::from_le_bytes(*signs);
                let scale = group_scale(scale, signs >> 28);
                for (l, index) in [i0, i1, i2, i3].into_iter().enumerate() {
                    let point = POINTS_XXS[usize::from(*index)];
                    put_signed(&mut out[8 * l..8 * l + 8], point, even_signs(signs >> (7 * l)), scale);
                }
            }
        }
    }
}

per_level! {
    fn decode_xs(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_XS>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let code = u16::from_le_bytes([block[2 + 2 * l], block[3 + 2 * l]]);
                let scale = group_scale(scale, u32::from(block[66 + l / 4] >> (4 * (l / 2 % 2))));
                put_signed(out, POINTS_XS[usize::from(code & 511)], even_signs(u32::from(code >> 9)), scale);
            }
        }
    }
}

per_level! {
    fn decode_s(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES_S>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let high = block[66 + l / 4] >> (2 * (l % 4)) & 3;
                let scale = group_scale(scale, u32::from(block[74 + l / 4] >> (4 * (l / 2 % 2))));
                let point = POINTS_S[usize::from(block[2 + l]) | usize::from(high) << 8];
                put_signed(out, point, block[34 + l], scale);
            }
        }
    }
}

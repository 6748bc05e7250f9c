//! IQ2_XXS, IQ2_XS and IQ2_S: points of eight magnitudes, with signs of their own.

use std::sync::LazyLock;

use super::grids::{IQ2_S as POINTS_S, IQ2_XS as POINTS_XS, IQ2_XXS as POINTS_XXS};
use super::magnitudes::{self, Coded, Magnitudes, SecondRound};
use super::neighbours::Lattice;
use super::{BLOCK, even_signs, put_signed, put_steps, signed, signs_and_step};
use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::ggml::codes::half_at;
use crate::simd::{per_level, turns};

const BYTES_XXS: usize = 2 + 64;
const BYTES_XS: usize = 2 + 64 + 8;
const BYTES_S: usize = 2 + 32 + 32 + 8 + 8;

pub(super) static IQ2_XXS: BlockScheme = BlockScheme {
    name: "iq2_xxs",
    grid: Grid::Lattice { bits: 2.0625 },
    block: BLOCK,
    planes: &blocks(BYTES_XXS),
    error_ceiling: 0.45,
    encode: Encode::Required(encode_xxs),
    decode: decode_xxs,
};

pub(super) static IQ2_XS: BlockScheme = BlockScheme {
    name: "iq2_xs",
    grid: Grid::Lattice { bits: 2.3125 },
    block: BLOCK,
    planes: &blocks(BYTES_XS),
    error_ceiling: 0.4,
    encode: Encode::Required(encode_xs),
    decode: decode_xs,
};

pub(super) static IQ2_S: BlockScheme = BlockScheme {
    name: "iq2_s",
    grid: Grid::Lattice { bits: 2.5625 },
    block: BLOCK,
    planes: &blocks(BYTES_S),
    error_ceiling: 0.4,
    encode: Encode::Weighted {
        plain: |values, bytes| encode_s(Weighted { values, importance: &[] }, bytes),
        weighted: encode_s,
    },
    decode: decode_s,
};

static LATTICE_XXS: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&POINTS_XXS, 2));
static LATTICE_XS: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&POINTS_XS, 2));
static LATTICE_S: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&POINTS_S, 1));

struct Xxs;
struct Xs;
struct S;

impl Magnitudes<32, 8, 16, BYTES_XXS> for Xxs {
    const CODES: i32 = 3;
    const CANDIDATES: (i32, f32) = (6, 0.1);
    const NOTHING: f32 = 1e-15;
    const ENERGY: f32 = 1.0;
    const EVEN_SIGNS: bool = true;
    const SECOND_ROUND: SecondRound = SecondRound::All;
    const CORRECTION: f32 = 1.0;

    fn lattice() -> &'static Lattice<8> {
        &LATTICE_XXS
    }

    /// Layout: scale (half precision), then for each group the numbers of four points and a word of signs, seven bits for
    /// each point, with the group's step on top.
    #[inline(always)]
    fn pack(block: &Coded, bytes: &mut [u8; BYTES_XXS]) {
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        let groups = block.points.as_chunks::<4>().0.iter().zip(block.signs.as_chunks::<4>().0).zip(block.steps);
        for (bytes, ((points, signs), step)) in bytes[2..].as_chunks_mut::<8>().0.iter_mut().zip(groups) {
            let points = points.map(|number| number as u8);
            bytes[..4].copy_from_slice(&points);
            bytes[4..].copy_from_slice(&signs_and_step(signs, step).to_le_bytes());
        }
    }
}

impl Magnitudes<16, 8, 24, BYTES_XS> for Xs {
    const CODES: i32 = 3;
    const CANDIDATES: (i32, f32) = (9, 0.1);
    const NOTHING: f32 = 1e-15;
    const ENERGY: f32 = 1.0;
    const EVEN_SIGNS: bool = true;
    const SECOND_ROUND: SecondRound = SecondRound::Moved;
    const CORRECTION: f32 = 1.0;

    fn lattice() -> &'static Lattice<8> {
        &LATTICE_XS
    }

    /// Layout: scale (half precision), for each point a word of its number and seven signs, steps of groups in nibbles.
    #[inline(always)]
    fn pack(block: &Coded, bytes: &mut [u8; BYTES_XS]) {
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        let points = block.points.iter().zip(block.signs);
        for (bytes, (number, signs)) in bytes[2..66].as_chunks_mut::<2>().0.iter_mut().zip(points) {
            *bytes = (number | u16::from(signs & 127) << 9).to_le_bytes();
        }
        put_steps(&block.steps, &mut bytes[66..]);
    }
}

impl Magnitudes<16, 8, 24, BYTES_S> for S {
    const CODES: i32 = 3;
    const CANDIDATES: (i32, f32) = (9, 0.1);
    const NOTHING: f32 = 1e-8;
    const ENERGY: f32 = 2.0;
    const EVEN_SIGNS: bool = false;
    const SECOND_ROUND: SecondRound = SecondRound::Moved;
    const CORRECTION: f32 = 0.9875;

    fn lattice() -> &'static Lattice<8> {
        &LATTICE_S
    }

    fn plain_weight(x: f32, energy: f32) -> f32 {
        0.25 * energy + x * x
    }

    /// Layout: scale (half precision), low bytes of the points' numbers, signs, high bits of the numbers, steps in nibbles.
    #[inline(always)]
    fn pack(block: &Coded, bytes: &mut [u8; BYTES_S]) {
        bytes.fill(0);
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        for (i, number) in block.points.iter().enumerate().take(32) {
            bytes[2 + i] = *number as u8;
            bytes[66 + i / 4] |= ((number >> 8) as u8) << (2 * (i % 4));
        }
        bytes[34..66].copy_from_slice(&block.signs);
        put_steps(&block.steps, &mut bytes[74..]);
    }
}

per_level! {
    fn encode_xxs(rows: Weighted<'_>, bytes: &mut [u8]) {
        magnitudes::encode::<Xxs, 32, 8, 16, BYTES_XXS>(rows, bytes);
    }
}

per_level! {
    fn encode_xs(rows: Weighted<'_>, bytes: &mut [u8]) {
        magnitudes::encode::<Xs, 16, 8, 24, BYTES_XS>(rows, bytes);
    }
}

per_level! {
    fn encode_s(rows: Weighted<'_>, bytes: &mut [u8]) {
        magnitudes::encode::<S, 16, 8, 24, BYTES_S>(rows, bytes);
    }
}

/// Scale of a group from the scale of its block and four bits.
#[inline(always)]
fn group_scale(scale: f32, bits: u32) -> f32 {
    scale * (0.5 + (bits & 15) as f32) * 0.25
}

per_level! {
    fn decode_xxs(bytes: &[u8], values: &mut [f32]) {
        let n = turns(32);
        for (block, out) in bytes.as_chunks::<BYTES_XXS>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let (mut points, mut scales) = ([0; BLOCK], [0.0; 8]);
            let groups = block[2..].as_chunks::<8>().0.iter().zip(points.as_chunks_mut::<32>().0);
            for (g, ([i0, i1, i2, i3, signs @ ..], points)) in groups.enumerate() {
                let signs = u32::from_le_bytes(*signs);
                scales[g] = group_scale(scale, signs >> 28);
                let indices = [i0, i1, i2, i3].into_iter().enumerate();
                for ((l, index), point) in indices.zip(points.as_chunks_mut().0) {
                    *point = signed(POINTS_XXS[usize::from(*index)], even_signs(signs >> (7 * l)));
                }
            }
            let groups = points.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for ((points, out), scale) in groups.zip(scales) {
                put_signed(scale, &points[..n], &mut out[..n]);
            }
        }
    }
}

per_level! {
    fn decode_xs(bytes: &[u8], values: &mut [f32]) {
        let n = turns(16);
        for (block, out) in bytes.as_chunks::<BYTES_XS>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let mut points = [0; BLOCK];
            for (point, code) in points.as_chunks_mut().0.iter_mut().zip(block[2..66].as_chunks().0) {
                let code = u16::from_le_bytes(*code);
                *point = signed(POINTS_XS[usize::from(code & 511)], even_signs(u32::from(code >> 9)));
            }
            put_groups(half_at(block, 0), &block[66..], &points, n, out);
        }
    }
}

per_level! {
    fn decode_s(bytes: &[u8], values: &mut [f32]) {
        let n = turns(16);
        for (block, out) in bytes.as_chunks::<BYTES_S>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let mut points = [0; BLOCK];
            for (l, point) in points.as_chunks_mut().0.iter_mut().enumerate() {
                let high = block[66 + l / 4] >> (2 * (l % 4)) & 3;
                *point = signed(POINTS_S[usize::from(block[2 + l]) | usize::from(high) << 8], block[34 + l]);
            }
            put_groups(half_at(block, 0), &block[74..], &points, n, out);
        }
    }
}

/// Groups of 16 values; `steps` has four bits for each. `n` is 16 too, see [`turns`].
#[inline(always)]
fn put_groups(scale: f32, steps: &[u8], points: &[u8; BLOCK], n: usize, out: &mut [f32; BLOCK]) {
    let groups = points.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
    for (g, (points, out)) in groups.enumerate() {
        let scale = group_scale(scale, u32::from(steps[g / 2] >> (4 * (g % 2))));
        put_signed(scale, &points[..n], &mut out[..n]);
    }
}

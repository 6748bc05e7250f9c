//! IQ3_XXS and IQ3_S: points of four magnitudes, two to eight signs.

use std::sync::LazyLock;

use super::grids::{IQ3_S as POINTS_S, IQ3_XXS as POINTS_XXS};
use super::magnitudes::{self, Coded, Magnitudes, SecondRound};
use super::neighbours::Lattice;
use super::{BLOCK, even_signs, put_signed, put_steps, signed, signs_and_step};
use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::ggml::codes::half_at;
use crate::simd::{per_level, turns};

const BYTES_XXS: usize = 2 + 64 + 32;
const BYTES_S: usize = 2 + 64 + 8 + 32 + 4;

pub(super) static IQ3_XXS: BlockScheme = BlockScheme {
    name: "iq3_xxs",
    grid: Grid::Lattice { bits: 3.0625 },
    block: BLOCK,
    planes: &blocks(BYTES_XXS),
    error_ceiling: 0.25,
    encode: Encode::Weighted {
        plain: |values, bytes| encode_xxs(Weighted { values, importance: &[] }, bytes),
        weighted: encode_xxs,
    },
    decode: decode_xxs,
};

pub(super) static IQ3_S: BlockScheme = BlockScheme {
    name: "iq3_s",
    grid: Grid::Lattice { bits: 3.4375 },
    block: BLOCK,
    planes: &blocks(BYTES_S),
    error_ceiling: 0.2,
    encode: Encode::Weighted {
        plain: |values, bytes| encode_s(Weighted { values, importance: &[] }, bytes),
        weighted: encode_s,
    },
    decode: decode_s,
};

static LATTICE_XXS: LazyLock<Lattice<4>> = LazyLock::new(|| Lattice::new(&POINTS_XXS, 2));
static LATTICE_S: LazyLock<Lattice<4>> = LazyLock::new(|| Lattice::new(&POINTS_S, 3));

struct Xxs;
struct S;

impl Magnitudes<32, 4, 32, BYTES_XXS> for Xxs {
    const CODES: i32 = 8;
    const CANDIDATES: (i32, f32) = (15, 0.2);
    const NOTHING: f32 = 1e-8;
    const ENERGY: f32 = 2.0;
    const EVEN_SIGNS: bool = true;
    const SECOND_ROUND: SecondRound = SecondRound::Moved;
    const CORRECTION: f32 = 1.0125;

    fn lattice() -> &'static Lattice<4> {
        &LATTICE_XXS
    }

    /// Layout: scale (half precision), numbers of the points, then for each group a word of signs, seven bits for eight
    /// values, with the group's step on top.
    #[inline(always)]
    fn pack(block: &Coded, bytes: &mut [u8; BYTES_XXS]) {
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        for (byte, number) in bytes[2..66].iter_mut().zip(&block.points) {
            *byte = *number as u8;
        }
        let groups = block.signs.as_chunks::<4>().0.iter().zip(block.steps);
        for (bytes, (signs, step)) in bytes[66..].as_chunks_mut::<4>().0.iter_mut().zip(groups) {
            *bytes = signs_and_step(signs, step).to_le_bytes();
        }
    }
}

impl Magnitudes<32, 4, 24, BYTES_S> for S {
    const CODES: i32 = 8;
    const CANDIDATES: (i32, f32) = (9, 0.2);
    const NOTHING: f32 = 0.0;
    const ENERGY: f32 = 2.0;
    const EVEN_SIGNS: bool = false;
    const SECOND_ROUND: SecondRound = SecondRound::AllIfMoved;
    const CORRECTION: f32 = 1.033;

    fn lattice() -> &'static Lattice<4> {
        &LATTICE_S
    }

    /// Layout: scale (half precision), low bytes of the points' numbers, their ninth bits, signs, steps in nibbles.
    ///
    /// Low bytes and signs of a group lie one group earlier for each empty group before it, where a reader does not expect
    /// them: that is how llama.cpp writes a block in which 32 zeros precede other values.
    #[inline(always)]
    fn pack(block: &Coded, bytes: &mut [u8; BYTES_S]) {
        bytes.fill(0);
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        let groups = block.points.as_chunks::<8>().0.iter().zip(block.signs.as_chunks::<4>().0);
        let mut place = 0;
        for (g, (points, signs)) in groups.enumerate() {
            if block.empty & 1 << g == 0 {
                bytes[2 + 8 * place..][..8].copy_from_slice(&points.map(|number| number as u8));
                bytes[74 + 4 * place..][..4].copy_from_slice(signs);
                place += 1;
            }
            bytes[66 + g] = points.iter().rev().fold(0, |ninth, number| ninth << 1 | (number >> 8) as u8);
        }
        put_steps(&block.steps[..8], &mut bytes[106..]);
    }
}

per_level! {
    fn encode_xxs(rows: Weighted<'_>, bytes: &mut [u8]) {
        magnitudes::encode::<Xxs, 32, 4, 32, BYTES_XXS>(rows, bytes);
    }
}

per_level! {
    fn encode_s(rows: Weighted<'_>, bytes: &mut [u8]) {
        magnitudes::encode::<S, 32, 4, 24, BYTES_S>(rows, bytes);
    }
}

#[inline(always)]
fn pair([a, b, c, d]: [u8; 4], [e, f, g, h]: [u8; 4]) -> [u8; 8] {
    [a, b, c, d, e, f, g, h]
}

per_level! {
    fn decode_xxs(bytes: &[u8], values: &mut [f32]) {
        let n = turns(32);
        for (block, out) in bytes.as_chunks::<BYTES_XXS>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let (mut points, mut scales) = ([0; BLOCK], [0.0; 8]);
            let (indices, signs) = block[2..].split_at(64);
            let groups = indices.as_chunks::<8>().0.iter().zip(signs.as_chunks::<4>().0);
            for (g, ((indices, signs), points)) in groups.zip(points.as_chunks_mut::<32>().0).enumerate() {
                let signs = u32::from_le_bytes(*signs);
                scales[g] = scale * (0.5 + (signs >> 28) as f32) * 0.5;
                for (l, point) in points.as_chunks_mut().0.iter_mut().enumerate() {
                    let half = |i: u8| POINTS_XXS[usize::from(i)];
                    let both = pair(half(indices[2 * l]), half(indices[2 * l + 1]));
                    *point = signed(both, even_signs(signs >> (7 * l)));
                }
            }
            put_groups(&points, &scales, n, out);
        }
    }
}

per_level! {
    fn decode_s(bytes: &[u8], values: &mut [f32]) {
        let n = turns(32);
        for (block, out) in bytes.as_chunks::<BYTES_S>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let (mut points, mut scales) = ([0; BLOCK], [0.0; 8]);
            for (l, point) in points.as_chunks_mut().0.iter_mut().enumerate() {
                let high = usize::from(block[66 + l / 4] >> (2 * (l % 4)));
                let first = POINTS_S[usize::from(block[2 + 2 * l]) | (high & 1) << 8];
                let second = POINTS_S[usize::from(block[3 + 2 * l]) | (high >> 1 & 1) << 8];
                *point = signed(pair(first, second), block[74 + l]);
            }
            for (g, group) in scales.iter_mut().enumerate() {
                *group = scale * f32::from(1 + 2 * (block[106 + g / 2] >> (4 * (g % 2)) & 15));
            }
            put_groups(&points, &scales, n, out);
        }
    }
}

/// Groups of 32 values. `n` is 32 too, see [`turns`].
#[inline(always)]
fn put_groups(points: &[u8; BLOCK], scales: &[f32; 8], n: usize, out: &mut [f32; BLOCK]) {
    let groups = points.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0);
    for ((points, out), scale) in groups.zip(scales) {
        put_signed(*scale, &points[..n], &mut out[..n]);
    }
}

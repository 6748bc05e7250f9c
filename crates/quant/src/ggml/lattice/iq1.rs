//! IQ1_S and IQ1_M: points of -1, 0 and 1 from a table of 2048, moved by an eighth up or down.

use std::sync::LazyLock;

use super::BLOCK;
use super::grids::IQ1_S as POINTS;
use super::neighbours::Lattice;
use super::ternary::{self, BlockCoder, Group, Halves, Ternary, Whole, group, levels};
use crate::Grid;
use crate::float::{f16_to_f32, f32_to_f16_bits};
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::ggml::codes::{half_at, put_half};
use crate::ggml::k::nearest;
use crate::simd::{per_level, turns};

const BYTES_S: usize = 2 + 32 + 16;
const BYTES_M: usize = 32 + 16 + 8;

pub(super) static IQ1_S: BlockScheme = BlockScheme {
    name: "iq1_s",
    grid: Grid::Lattice { bits: 1.5625 },
    block: BLOCK,
    planes: &blocks(BYTES_S),
    error_ceiling: 0.6,
    encode: Encode::Required(encode_s),
    decode: decode_s,
};

pub(super) static IQ1_M: BlockScheme = BlockScheme {
    name: "iq1_m",
    grid: Grid::Lattice { bits: 1.75 },
    block: BLOCK,
    planes: &blocks(BYTES_M),
    error_ceiling: 0.6,
    encode: Encode::Weighted {
        plain: |values, bytes| encode_m(Weighted { values, importance: &[] }, bytes),
        weighted: encode_m,
    },
    decode: decode_m,
};

static LATTICE: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&POINTS, 3));

/// The step of a group's scale, from 0 to 7, where `inverse` is one over the scale of the block.
#[inline(always)]
fn step(inverse: f32, scale: f32) -> u16 {
    nearest(0.5 * (inverse * scale - 1.0)).clamp(0, 7) as u16
}

per_level! {
    fn encode_s(rows: Weighted<'_>, bytes: &mut [u8]) {
        ternary::encode::<Whole, BYTES_S>(rows, bytes);
    }
}

per_level! {
    fn encode_m(rows: Weighted<'_>, bytes: &mut [u8]) {
        ternary::encode::<Halves, BYTES_M>(rows, bytes);
    }
}

impl BlockCoder<BYTES_S> for Whole {
    #[inline(always)]
    fn block(x: &[f32; BLOCK], weights: &[f32; BLOCK], bytes: &mut [u8; BYTES_S]) {
        bytes.fill(0);
        let (mut groups, mut largest) = ([Group::default(); 8], 0.0);
        for (g, (x, weights)) in x.as_chunks().0.iter().zip(weights.as_chunks().0).enumerate() {
            groups[g] = group::<Whole, 32, 2>(&LATTICE, x, weights).unwrap_or_default();
            largest = if largest > groups[g].scale { largest } else { groups[g].scale };
        }
        let inverse = 1.0 / (largest / 15.0);
        for (g, group) in groups.iter().enumerate() {
            let mut word = 0;
            for (l, number) in group.points.iter().enumerate() {
                bytes[2 + 4 * g + l] = *number as u8;
                word |= number >> 8 << (3 * l);
            }
            if largest != 0.0 {
                word |= step(inverse, group.scale) << 12 | (group.shifts as u16) << 15;
            }
            bytes[34 + 2 * g..36 + 2 * g].copy_from_slice(&word.to_le_bytes());
        }
        if largest != 0.0 {
            // The factor reduced the error in practice.
            put_half(bytes, 0, largest / 15.0 * 1.125);
        }
    }
}

impl BlockCoder<BYTES_M> for Halves {
    #[inline(always)]
    fn block(x: &[f32; BLOCK], weights: &[f32; BLOCK], bytes: &mut [u8; BYTES_M]) {
        bytes.fill(0);
        let (mut groups, mut largest) = ([Group::default(); 16], 0.0);
        for (g, (x, weights)) in x.as_chunks().0.iter().zip(weights.as_chunks().0).enumerate() {
            groups[g] = group::<Halves, 16, 4>(&LATTICE, x, weights).unwrap_or_default();
            largest = if largest > groups[g].scale { largest } else { groups[g].scale };
            let [first, second, ..] = groups[g].points;
            (bytes[2 * g], bytes[2 * g + 1]) = (first as u8, second as u8);
            bytes[32 + g] = (first >> 8 | second >> 8 << 4) as u8;
        }
        if largest != 0.0 {
            finish_m(&groups, x, weights, largest / 15.0, bytes);
        }
    }
}

/// Stores steps and shifts of groups, and the scale that fits best with those.
#[inline(always)]
fn finish_m(groups: &[Group; 16], x: &[f32; BLOCK], weights: &[f32; BLOCK], mut scale: f32, bytes: &mut [u8; BYTES_M]) {
    let inverse = 1.0 / scale;
    let mut words = [0u16; 4];
    let (mut products, mut squares) = (0.0, 0.0);
    for (g, group) in groups.iter().enumerate() {
        let step = step(inverse, group.scale);
        words[g / 4] |= step << (3 * (g % 4));
        for k in 0..2 {
            let shift = Halves::shift(group.shifts, k);
            bytes[32 + g] |= (shift as u8) << (4 * k + 3);
            let point = POINTS[usize::from(group.points[k]) & 2047];
            for (j, coordinate) in point.iter().enumerate() {
                let i = 16 * g + 8 * k + j;
                let level = levels(shift)[(coordinate + 1) as usize % 3] * f32::from(2 * step + 1);
                products += weights[i] * level * x[i];
                squares += weights[i] * level * level;
            }
        }
    }
    if squares > 0.0 {
        scale = products / squares;
    }
    // The factor reduced the error in practice.
    let bits = f32_to_f16_bits(scale * 1.1125);
    for (i, word) in words.iter().enumerate() {
        let word = word | (bits >> (4 * i) & 15) << 12;
        bytes[48 + 2 * i..50 + 2 * i].copy_from_slice(&word.to_le_bytes());
    }
}

/// Eight coordinates each, as eight times the coordinate and ten.
static EIGHTHS: [[u8; 8]; 2048] = {
    let (mut eighths, mut i) = ([[0; 8]; 2048], 0);
    while i < 2048 * 8 {
        eighths[i / 8][i % 8] = (8 * POINTS[i / 8][i % 8] + 10) as u8;
        i += 1;
    }
    eighths
};

/// A point moved by an eighth: in each byte eight times the value, and nine.
#[inline(always)]
fn moved(index: usize, down: bool) -> [u8; 8] {
    let point = u64::from_le_bytes(EIGHTHS[index & 2047]);
    (point - if down { 0x0202_0202_0202_0202 } else { 0 }).to_le_bytes()
}

/// Values of [`moved`] points. An eighth of the scale is exact, so the product is that with the value itself.
#[inline(always)]
fn put(scale: f32, moved: &[u8], out: &mut [f32]) {
    let scale = scale * 0.125;
    for (out, eighths) in out.iter_mut().zip(moved) {
        *out = scale * (f32::from(*eighths) - 9.0);
    }
}

per_level! {
    fn decode_s(bytes: &[u8], values: &mut [f32]) {
        let n = turns(32);
        for (block, out) in bytes.as_chunks::<BYTES_S>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let (mut points, mut scales) = ([0; BLOCK], [0.0; 8]);
            for (g, points) in points.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let high = u16::from_le_bytes([block[34 + 2 * g], block[35 + 2 * g]]);
                scales[g] = scale * f32::from(2 * (high >> 12 & 7) + 1);
                for (l, point) in points.as_chunks_mut().0.iter_mut().enumerate() {
                    let index = u16::from(block[2 + 4 * g + l]) | (high >> (3 * l) & 7) << 8;
                    *point = moved(usize::from(index), high & 0x8000 != 0);
                }
            }
            let groups = points.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for ((points, out), scale) in groups.zip(scales) {
                put(scale, &points[..n], &mut out[..n]);
            }
        }
    }
}

per_level! {
    fn decode_m(bytes: &[u8], values: &mut [f32]) {
        let n = turns(16);
        for (block, out) in bytes.as_chunks::<BYTES_M>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let mut words = [0; 4];
            for (i, word) in words.iter_mut().enumerate() {
                *word = u16::from_le_bytes([block[48 + 2 * i], block[49 + 2 * i]]);
            }
            // The scale of the block lies in the top four bits of the words of group scales.
            let [a, b, c, d] = words.map(|word| word >> 12);
            let scale = f16_to_f32(a | b << 4 | c << 8 | d << 12);
            let mut points = [0; BLOCK];
            for (g, points) in points.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                for (l, point) in points.as_chunks_mut().0.iter_mut().enumerate() {
                    let high = block[32 + g] >> (4 * l);
                    *point = moved(usize::from(block[2 * g + l]) | usize::from(high & 7) << 8, high & 8 != 0);
                }
            }
            let groups = points.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
            for (g, (points, out)) in groups.enumerate() {
                let scale = scale * f32::from(2 * (words[g / 4] >> (3 * (g % 4)) & 7) + 1);
                put(scale, &points[..n], &mut out[..n]);
            }
        }
    }
}

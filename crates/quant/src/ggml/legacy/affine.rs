//! Q4_1 and Q5_1: codes times a scale, plus a minimum.

use super::search::{Rows, affine};
use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::ggml::codes::*;
use crate::ggml::lanes::LANES;
use crate::simd::{per_level, turns};

const BYTES4: usize = 4 + 16;
const BYTES5: usize = 4 + 4 + 16;

pub(super) static Q4_1: BlockScheme = BlockScheme {
    name: "q4_1",
    grid: Grid::Affine { bits: 4, group: BLOCK, symmetric: false },
    block: BLOCK,
    planes: &blocks(BYTES4),
    error_ceiling: 0.1,
    encode: Encode::Weighted { plain: encode4, weighted: weighted4 },
    decode: decode4,
};

pub(super) static Q5_1: BlockScheme = BlockScheme {
    name: "q5_1",
    grid: Grid::Affine { bits: 5, group: BLOCK, symmetric: false },
    block: BLOCK,
    planes: &blocks(BYTES5),
    error_ceiling: 0.05,
    encode: Encode::Weighted { plain: encode5, weighted: weighted5 },
    decode: decode5,
};

/// The scale, the minimum, and codes from 0 to `last`.
#[inline(always)]
fn quantize(x: &[f32; BLOCK], last: f32) -> (f32, f32, [u8; BLOCK]) {
    let (min, max) = extremes(x);
    let scale = (max - min) / last;
    let inverse = inverse(scale);
    let mut codes = [0; BLOCK];
    for i in 0..BLOCK {
        codes[i] = whole_to_byte(((x[i] - min) * inverse + 0.5).trunc()).min(last as u8);
    }
    (scale, min, codes)
}

#[inline(always)]
fn pack4(block: &mut [u8; BYTES4], scale: f32, min: f32, codes: &[u8; BLOCK]) {
    put_half(block, 0, scale);
    put_half(block, 2, min);
    pack_nibbles(codes, &mut block[4..]);
}

#[inline(always)]
fn pack5(block: &mut [u8; BYTES5], scale: f32, min: f32, codes: &[u8; BLOCK]) {
    put_half(block, 0, scale);
    put_half(block, 2, min);
    pack_fifth(codes, &mut block[4..8]);
    pack_nibbles(codes, &mut block[8..]);
}

per_level! {
    fn encode4(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES4>().0) {
            let (scale, min, codes) = quantize(x, 15.0);
            pack4(block, scale, min, &codes);
        }
    }
}

per_level! {
    fn encode5(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES5>().0) {
            let (scale, min, codes) = quantize(x, 31.0);
            pack5(block, scale, min, &codes);
        }
    }
}

fn weighted4(rows: Weighted<'_>, bytes: &mut [u8]) {
    let rows = Rows::new(rows);
    for (i, blocks) in bytes.as_chunks_mut::<BYTES4>().0.chunks_mut(LANES).enumerate() {
        let (x, weights) = rows.lanes(i * LANES);
        let found = affine(&x, &weights, 15.0);
        for (lane, (block, codes)) in blocks.iter_mut().zip(found.codes()).enumerate() {
            pack4(block, found.scale[lane], found.min[lane], &codes);
        }
    }
}

fn weighted5(rows: Weighted<'_>, bytes: &mut [u8]) {
    let rows = Rows::new(rows);
    for (i, blocks) in bytes.as_chunks_mut::<BYTES5>().0.chunks_mut(LANES).enumerate() {
        let (x, weights) = rows.lanes(i * LANES);
        let found = affine(&x, &weights, 31.0);
        for (lane, (block, codes)) in blocks.iter_mut().zip(found.codes()).enumerate() {
            pack5(block, found.scale[lane], found.min[lane], &codes);
        }
    }
}

per_level! {
    fn decode4(bytes: &[u8], values: &mut [f32]) {
        let n = turns(BLOCK / 2);
        for (block, out) in bytes.as_chunks::<BYTES4>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let (scale, min) = (half_at(block, 0), half_at(block, 2));
            let (low, high) = out.split_at_mut(BLOCK / 2);
            for ((low, high), byte) in low[..n].iter_mut().zip(&mut high[..n]).zip(&block[4..][..n]) {
                *low = f32::from(byte & 15) * scale + min;
                *high = f32::from(byte >> 4) * scale + min;
            }
        }
    }
}

per_level! {
    fn decode5(bytes: &[u8], values: &mut [f32]) {
        let n = turns(BLOCK);
        for (block, out) in bytes.as_chunks::<BYTES5>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let (scale, min) = (half_at(block, 0), half_at(block, 2));
            let codes = unpack_five(block, 4);
            for (out, code) in out[..n].iter_mut().zip(&codes[..n]) {
                *out = f32::from(*code) * scale + min;
            }
        }
    }
}

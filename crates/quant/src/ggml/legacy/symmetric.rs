//! Q4_0 and Q5_0: codes around zero times a scale, which the largest value's sign goes into.

use super::search::{Rows, symmetric};
use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::ggml::codes::*;
use crate::ggml::lanes::LANES;
use crate::simd::{per_level, turns};

const BYTES4: usize = 2 + 16;
const BYTES5: usize = 2 + 4 + 16;

pub(super) static Q4_0: BlockScheme = BlockScheme {
    name: "q4_0",
    grid: Grid::Affine { bits: 4, group: BLOCK, symmetric: true },
    block: BLOCK,
    planes: &blocks(BYTES4),
    error_ceiling: 0.1,
    encode: Encode::Weighted { plain: encode4, weighted: weighted4 },
    decode: decode4,
};

pub(super) static Q5_0: BlockScheme = BlockScheme {
    name: "q5_0",
    grid: Grid::Affine { bits: 5, group: BLOCK, symmetric: true },
    block: BLOCK,
    planes: &blocks(BYTES5),
    error_ceiling: 0.05,
    encode: Encode::Weighted { plain: encode5, weighted: weighted5 },
    decode: decode5,
};

/// The scale, and codes from 0 to `2 * half - 1`; `half` is the code of zero.
#[inline(always)]
fn quantize(x: &[f32; BLOCK], half: f32) -> (f32, [u8; BLOCK]) {
    let scale = first_largest(x) / -half;
    let inverse = inverse(scale);
    let mut codes = [0; BLOCK];
    for i in 0..BLOCK {
        codes[i] = whole_to_byte((x[i] * inverse + (half + 0.5)).trunc()).min(2 * half as u8 - 1);
    }
    (scale, codes)
}

#[inline(always)]
fn pack4(block: &mut [u8; BYTES4], scale: f32, codes: &[u8; BLOCK]) {
    put_half(block, 0, scale);
    pack_nibbles(codes, &mut block[2..]);
}

#[inline(always)]
fn pack5(block: &mut [u8; BYTES5], scale: f32, codes: &[u8; BLOCK]) {
    put_half(block, 0, scale);
    pack_fifth(codes, &mut block[2..6]);
    pack_nibbles(codes, &mut block[6..]);
}

per_level! {
    fn encode4(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES4>().0) {
            let (scale, codes) = quantize(x, 8.0);
            pack4(block, scale, &codes);
        }
    }
}

per_level! {
    fn encode5(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES5>().0) {
            let (scale, codes) = quantize(x, 16.0);
            pack5(block, scale, &codes);
        }
    }
}

fn weighted4(rows: Weighted<'_>, bytes: &mut [u8]) {
    let rows = Rows::new(rows);
    for (i, blocks) in bytes.as_chunks_mut::<BYTES4>().0.chunks_mut(LANES).enumerate() {
        let (x, weights) = rows.lanes(i * LANES);
        let found = symmetric(&x, &weights, 8.0);
        for (lane, (block, codes)) in blocks.iter_mut().zip(found.codes()).enumerate() {
            pack4(block, found.scale[lane], &codes);
        }
    }
}

fn weighted5(rows: Weighted<'_>, bytes: &mut [u8]) {
    let rows = Rows::new(rows);
    for (i, blocks) in bytes.as_chunks_mut::<BYTES5>().0.chunks_mut(LANES).enumerate() {
        let (x, weights) = rows.lanes(i * LANES);
        let found = symmetric(&x, &weights, 16.0);
        for (lane, (block, codes)) in blocks.iter_mut().zip(found.codes()).enumerate() {
            pack5(block, found.scale[lane], &codes);
        }
    }
}

per_level! {
    fn decode4(bytes: &[u8], values: &mut [f32]) {
        let n = turns(BLOCK / 2);
        for (block, out) in bytes.as_chunks::<BYTES4>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let (low, high) = out.split_at_mut(BLOCK / 2);
            for ((low, high), byte) in low[..n].iter_mut().zip(&mut high[..n]).zip(&block[2..][..n]) {
                *low = (f32::from(byte & 15) - 8.0) * scale;
                *high = (f32::from(byte >> 4) - 8.0) * scale;
            }
        }
    }
}

per_level! {
    fn decode5(bytes: &[u8], values: &mut [f32]) {
        let n = turns(BLOCK);
        for (block, out) in bytes.as_chunks::<BYTES5>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            let codes = unpack_five(block, 2);
            for (out, code) in out[..n].iter_mut().zip(&codes[..n]) {
                *out = (f32::from(*code) - 16.0) * scale;
            }
        }
    }
}

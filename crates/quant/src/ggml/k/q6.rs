//! Q6_K: 16 sub-blocks of 16 values, 6-bit codes, 8-bit scales.

use crate::Grid;
use crate::float::f16_to_f32;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::simd::{per_level, turns};

use super::batch::{self, BatchCodes, Coder, SUPER};
use super::symmetric::{self, SymmetricBlock};
use super::vector::{LANES, Lanes, Mask};

const BYTES: usize = 210;

pub(super) static Q6_K: BlockScheme = BlockScheme {
    name: "q6_k",
    grid: Grid::SuperBlock { bits: 6 },
    block: SUPER,
    planes: &blocks(BYTES),
    error_ceiling: 0.02,
    encode: Encode::Weighted {
        plain: |values, bytes| encode(Weighted { values, importance: &[] }, bytes),
        weighted: encode,
    },
    decode,
};

per_level! {
    fn encode(rows: Weighted<'_>, bytes: &mut [u8]) {
        batch::encode::<Q6>(rows, bytes)
    }
}

pub(super) struct Q6;

impl Coder for Q6 {
    type Block = SymmetricBlock;
    const BYTES: usize = BYTES;

    fn one(x: &[f32; SUPER], weights: Option<&[f32; SUPER]>) -> SymmetricBlock {
        symmetric::q6(x, weights)
    }

    fn many(
        x: &[Lanes; SUPER],
        weights: Option<&[Lanes; SUPER]>,
        blocks: &mut [SymmetricBlock; LANES],
        codes: &mut BatchCodes,
    ) -> Mask {
        symmetric::q6_many(x, weights, blocks, codes)
    }

    #[inline(always)]
    fn codes(block: &mut SymmetricBlock) -> &mut [u8; SUPER] {
        &mut block.codes
    }

    /// Layout: 128 bytes of low nibbles, 64 bytes of high pairs, 16 sub-block scales, scale (half precision). Of each 128
    /// codes, those 64 apart share a byte of nibbles, those 32 apart a byte of pairs.
    #[inline(always)]
    fn pack(block: &SymmetricBlock, bytes: &mut [u8]) {
        let (low, rest) = bytes.split_at_mut(128);
        let (high, rest) = rest.split_at_mut(64);
        let halves = low.as_chunks_mut::<64>().0.iter_mut().zip(high.as_chunks_mut::<32>().0);
        for ((low, high), codes) in halves.zip(block.codes.as_chunks::<128>().0) {
            for (i, byte) in low.iter_mut().enumerate() {
                *byte = codes[i] & 15 | codes[i + 64] << 4;
            }
            for (i, byte) in high.iter_mut().enumerate() {
                let pair = |part: usize| (codes[i + 32 * part] >> 4) << (2 * part);
                *byte = pair(0) | pair(1) | pair(2) | pair(3);
            }
        }
        for (byte, scale) in rest.iter_mut().zip(&block.scales) {
            *byte = *scale as u8;
        }
        rest[16..18].copy_from_slice(&block.scale.to_le_bytes());
    }
}

per_level! {
    fn decode(bytes: &[u8], values: &mut [f32]) {
        let n = turns(16);
        for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<SUPER>().0) {
            let scale = f16_to_f32(u16::from_le_bytes([block[208], block[209]]));
            for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let d = scale * f32::from(block[192 + j] as i8);
                let (half, part, odd) = (j / 8, j / 2 % 4, j % 2);
                let lows = &block[half * 64 + part % 2 * 32 + odd * 16..][..16];
                let highs = &block[128 + half * 32 + odd * 16..][..16];
                for ((value, low), high) in values[..n].iter_mut().zip(&lows[..n]).zip(&highs[..n]) {
                    let code = (low >> (part / 2 * 4) & 15) | (high >> (part * 2) & 3) << 4;
                    *value = d * f32::from(code as i8 - 32);
                }
            }
        }
    }
}

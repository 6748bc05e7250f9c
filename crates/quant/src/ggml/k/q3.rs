//! Q3_K: 16 sub-blocks of 16 values, 3-bit codes, 6-bit scales.

use crate::Grid;
use crate::float::f16_to_f32;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::simd::per_level;

use super::batch::{self, BatchCodes, Coder, SUPER};
use super::q2::pack_pairs;
use super::symmetric::{self, SymmetricBlock};
use super::vector::{LANES, Lanes, Mask};

const BYTES: usize = 110;

pub(super) static Q3_K: BlockScheme = BlockScheme {
    name: "q3_k",
    grid: Grid::SuperBlock { bits: 3 },
    block: SUPER,
    planes: &blocks(BYTES),
    error_ceiling: 0.2,
    encode: Encode::Weighted {
        plain: |values, bytes| encode(Weighted { values, importance: &[] }, bytes),
        weighted: encode,
    },
    decode,
};

per_level! {
    fn encode(rows: Weighted<'_>, bytes: &mut [u8]) {
        batch::encode::<Q3>(rows, bytes)
    }
}

pub(super) struct Q3;

impl Coder for Q3 {
    type Block = SymmetricBlock;
    const BYTES: usize = BYTES;

    fn one(x: &[f32; SUPER], weights: Option<&[f32; SUPER]>) -> SymmetricBlock {
        symmetric::q3(x, weights)
    }

    fn many(
        x: &[Lanes; SUPER],
        weights: Option<&[Lanes; SUPER]>,
        blocks: &mut [SymmetricBlock; LANES],
        codes: &mut BatchCodes,
    ) -> Mask {
        symmetric::q3_many(x, weights, blocks, codes)
    }

    #[inline(always)]
    fn codes(block: &mut SymmetricBlock) -> &mut [u8; SUPER] {
        &mut block.codes
    }

    /// Layout: 32 bytes of high bits (bit `j` of byte `i` is that of value `32 * j + i`), 64 bytes of low pairs, 12 bytes of
    /// sub-block scales, scale (half precision).
    #[inline(always)]
    fn pack(block: &SymmetricBlock, bytes: &mut [u8]) {
        let mut top = [0u8; 32];
        for (j, codes) in block.codes.as_chunks::<32>().0.iter().enumerate() {
            for (top, code) in top.iter_mut().zip(codes) {
                *top |= (code >> 2) << j;
            }
        }
        bytes[..32].copy_from_slice(&top);
        pack_pairs(&block.codes, &mut bytes[32..96]);
        bytes[96..108].copy_from_slice(&pack_scales(&block.scales));
        bytes[108..110].copy_from_slice(&block.scale.to_le_bytes());
    }
}

/// Sixteen 6-bit numbers in 12 bytes: low nibbles of the first and last eight side by side, then the high pairs.
#[inline(always)]
fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let code = |j: usize| (scales[j] + 32) as u8;
    let mut bytes = [0; 12];
    for (j, byte) in bytes.iter_mut().enumerate().take(8) {
        *byte = code(j) & 15 | code(j + 8) << 4;
    }
    for j in 0..16 {
        bytes[8 + j % 4] |= code(j) >> 4 << (j / 4 * 2);
    }
    bytes
}

/// The inverse of [`pack_scales`].
#[inline(always)]
fn unpack_scales(bytes: &[u8]) -> [i8; 16] {
    let mut scales = [0; 16];
    for (j, scale) in scales.iter_mut().enumerate() {
        let low = bytes[j % 8] >> (j / 8 * 4) & 15;
        let high = bytes[8 + j % 4] >> (j / 4 * 2) & 3;
        *scale = (low | high << 4) as i8 - 32;
    }
    scales
}

per_level! {
    fn decode(bytes: &[u8], values: &mut [f32]) {
        for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<SUPER>().0) {
            let scale = f16_to_f32(u16::from_le_bytes([block[108], block[109]]));
            let scales = unpack_scales(&block[96..108]);
            for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let d = scale * f32::from(scales[j]);
                let shift = j / 2 % 4 * 2;
                let tops = &block[j % 2 * 16..][..16];
                let bytes = &block[32 + j / 8 * 32 + j % 2 * 16..][..16];
                for ((value, byte), top) in values.iter_mut().zip(bytes).zip(tops) {
                    let code = (byte >> shift & 3) | (top >> (j / 2) & 1) << 2;
                    *value = d * f32::from(code as i8 - 4);
                }
            }
        }
    }
}

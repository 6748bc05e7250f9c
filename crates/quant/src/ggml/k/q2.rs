//! Q2_K: 16 sub-blocks of 16 values, 2-bit codes, 4-bit scales and minima.

use crate::Grid;
use crate::float::f16_to_f32;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::simd::{per_level, turns};

use super::affine::{self, AffineBlock, AffineFormat};
use super::batch::{self, BatchCodes, Coder, SUPER, WEIGHTED_STEPS};
use super::lanes::{self, AffineFit};
use super::search::Steps;
use super::vector::{LANES, Lanes, Mask};

const BYTES: usize = 84;

pub(super) static Q2_K: BlockScheme = BlockScheme {
    name: "q2_k",
    grid: Grid::SuperBlock { bits: 2 },
    block: SUPER,
    planes: &blocks(BYTES),
    error_ceiling: 0.35,
    encode: Encode::Weighted {
        plain: |values, bytes| encode(Weighted { values, importance: &[] }, bytes),
        weighted: encode,
    },
    decode,
};

per_level! {
    fn encode(rows: Weighted<'_>, bytes: &mut [u8]) {
        batch::encode::<Q2>(rows, bytes)
    }
}

pub(super) struct Q2;

impl AffineFormat<16> for Q2 {
    const MAX_CODE: i32 = 3;
    const MAX_SCALE: i32 = 15;
    const STEPS: Steps = Steps { first: -0.5, delta: 0.1, count: 15 };
    const ABSOLUTE: bool = true;
    const SIGMA_DIVISOR: f32 = 256.0;

    fn search(x: [&[Lanes; 16]; 2], weights: [&[Lanes; 16]; 2], weighted: bool, fits: &mut [AffineFit; 2]) {
        if weighted {
            lanes::affine_16(x, weights, Self::MAX_CODE, WEIGHTED_STEPS, fits);
        } else {
            lanes::affine_16_absolute(x, weights, Self::MAX_CODE, Self::STEPS, fits);
        }
    }
}

impl Coder for Q2 {
    type Block = AffineBlock;
    const BYTES: usize = BYTES;

    fn one(x: &[f32; SUPER], weights: Option<&[f32; SUPER]>) -> AffineBlock {
        affine::one::<Self, 16>(x, weights)
    }

    fn many(
        x: &[Lanes; SUPER],
        weights: Option<&[Lanes; SUPER]>,
        blocks: &mut [AffineBlock; LANES],
        codes: &mut BatchCodes,
    ) -> Mask {
        affine::many::<Self, 16>(x, weights, blocks, codes)
    }

    #[inline(always)]
    fn codes(block: &mut AffineBlock) -> &mut [u8; SUPER] {
        &mut block.codes
    }

    /// Layout: 16 bytes of sub-block scales (low nibble) and minima (high), 64 bytes of codes, scale and minimum (half
    /// precision).
    #[inline(always)]
    fn pack(block: &AffineBlock, bytes: &mut [u8]) {
        for ((byte, scale), min) in bytes.iter_mut().zip(&block.scales).zip(&block.mins) {
            *byte = scale | min << 4;
        }
        pack_pairs(&block.codes, &mut bytes[16..80]);
        bytes[80..82].copy_from_slice(&block.scale.to_le_bytes());
        bytes[82..84].copy_from_slice(&block.min.to_le_bytes());
    }
}

/// The low two bits of 256 codes in 64 bytes: of each 128 codes, byte `i` holds those of `i`, `i + 32`, `i + 64`, `i + 96`.
#[inline(always)]
pub(super) fn pack_pairs(codes: &[u8; SUPER], bytes: &mut [u8]) {
    for (bytes, codes) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(codes.as_chunks::<128>().0) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            let pair = |part: usize| (codes[i + 32 * part] & 3) << (2 * part);
            *byte = pair(0) | pair(1) | pair(2) | pair(3);
        }
    }
}

per_level! {
    fn decode(bytes: &[u8], values: &mut [f32]) {
        let n = turns(16);
        for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<SUPER>().0) {
            let scale = f16_to_f32(u16::from_le_bytes([block[80], block[81]]));
            let min = f16_to_f32(u16::from_le_bytes([block[82], block[83]]));
            for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let (d, m) = (scale * f32::from(block[j] & 15), min * f32::from(block[j] >> 4));
                let shift = j / 2 % 4 * 2;
                let bytes = &block[16 + j / 8 * 32 + j % 2 * 16..][..16];
                for (value, byte) in values[..n].iter_mut().zip(&bytes[..n]) {
                    *value = d * f32::from(byte >> shift & 3) - m;
                }
            }
        }
    }
}

//! Q5_K: 8 sub-blocks of 32 values, 5-bit codes, 6-bit scales and minima.

use crate::Grid;
use crate::float::f16_to_f32;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::simd::per_level;

use super::affine::{self, AffineBlock, AffineFormat};
use super::batch::{self, BatchCodes, Coder, SUPER, WEIGHTED_STEPS};
use super::lanes::{self, AffineFit};
use super::q4::{pack_scales, unpack_scales};
use super::search::Steps;
use super::vector::{LANES, Lanes, Mask};

const BYTES: usize = 176;

pub(super) static Q5_K: BlockScheme = BlockScheme {
    name: "q5_k",
    grid: Grid::SuperBlock { bits: 5 },
    block: SUPER,
    planes: &blocks(BYTES),
    error_ceiling: 0.04,
    encode: Encode::Weighted {
        plain: |values, bytes| encode(Weighted { values, importance: &[] }, bytes),
        weighted: encode,
    },
    decode,
};

per_level! {
    fn encode(rows: Weighted<'_>, bytes: &mut [u8]) {
        batch::encode::<Q5>(rows, bytes)
    }
}

pub(super) struct Q5;

impl AffineFormat<32> for Q5 {
    const MAX_CODE: i32 = 31;
    const MAX_SCALE: i32 = 63;
    const STEPS: Steps = Steps { first: -0.5, delta: 0.1, count: 15 };
    const ABSOLUTE: bool = false;
    const SIGMA_DIVISOR: f32 = 128.0;

    fn search(x: [&[Lanes; 32]; 2], weights: [&[Lanes; 32]; 2], weighted: bool, fits: &mut [AffineFit; 2]) {
        lanes::affine_32(x, weights, Self::MAX_CODE, if weighted { WEIGHTED_STEPS } else { Self::STEPS }, fits);
    }
}

impl Coder for Q5 {
    type Block = AffineBlock;
    const BYTES: usize = BYTES;

    fn one(x: &[f32; SUPER], weights: Option<&[f32; SUPER]>) -> AffineBlock {
        affine::one::<Self, 32>(x, weights)
    }

    fn many(
        x: &[Lanes; SUPER],
        weights: Option<&[Lanes; SUPER]>,
        blocks: &mut [AffineBlock; LANES],
        codes: &mut BatchCodes,
    ) -> Mask {
        affine::many::<Self, 32>(x, weights, blocks, codes)
    }

    #[inline(always)]
    fn codes(block: &mut AffineBlock) -> &mut [u8; SUPER] {
        &mut block.codes
    }

    /// Layout: scale and minimum (half precision), 12 bytes of sub-block scales, 32 bytes of high bits (bit `j` of byte `i`
    /// is that of value `i` of sub-block `j`), then low nibbles as in Q4_K.
    #[inline(always)]
    fn pack(block: &AffineBlock, bytes: &mut [u8]) {
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        bytes[2..4].copy_from_slice(&block.min.to_le_bytes());
        bytes[4..16].copy_from_slice(&pack_scales(&block.scales, &block.mins));
        let (codes, _) = block.codes.as_chunks::<64>();
        let mut top = [0u8; 32];
        for (j, (bytes, codes)) in bytes[48..].as_chunks_mut::<32>().0.iter_mut().zip(codes).enumerate() {
            let (low, high) = codes.split_at(32);
            for (((byte, top), low), high) in bytes.iter_mut().zip(&mut top).zip(low).zip(high) {
                *byte = low & 15 | high << 4;
                *top |= (low >> 4 | high >> 4 << 1) << (2 * j);
            }
        }
        bytes[16..48].copy_from_slice(&top);
    }
}

per_level! {
    fn decode(bytes: &[u8], values: &mut [f32]) {
        for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<SUPER>().0) {
            let scale = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
            let min = f16_to_f32(u16::from_le_bytes([block[2], block[3]]));
            let (scales, mins) = unpack_scales(&block[4..16]);
            let top = &block[16..48];
            let (values, _) = values.as_chunks_mut::<64>();
            for (j, (values, bytes)) in values.iter_mut().zip(block[48..].as_chunks::<32>().0).enumerate() {
                let (low, high) = values.split_at_mut(32);
                let (d, m) = (scale * f32::from(scales[2 * j]), min * f32::from(mins[2 * j]));
                for ((value, byte), top) in low.iter_mut().zip(bytes).zip(top) {
                    *value = d * f32::from(byte & 15 | (top >> (2 * j) & 1) << 4) - m;
                }
                let (d, m) = (scale * f32::from(scales[2 * j + 1]), min * f32::from(mins[2 * j + 1]));
                for ((value, byte), top) in high.iter_mut().zip(bytes).zip(top) {
                    *value = d * f32::from(byte >> 4 | (top >> (2 * j + 1) & 1) << 4) - m;
                }
            }
        }
    }
}

//! Q4_K: 8 sub-blocks of 32 values, 4-bit codes, 6-bit scales and minima.

use crate::Grid;
use crate::float::f16_to_f32;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::simd::{per_level, turns};

use super::affine::{self, AffineBlock, AffineFormat};
use super::batch::{self, BatchCodes, Coder, SUPER, WEIGHTED_STEPS};
use super::lanes::{self, AffineFit};
use super::search::Steps;
use super::vector::{LANES, Lanes, Mask};

const BYTES: usize = 144;

pub(super) static Q4_K: BlockScheme = BlockScheme {
    name: "q4_k",
    grid: Grid::SuperBlock { bits: 4 },
    block: SUPER,
    planes: &blocks(BYTES),
    error_ceiling: 0.08,
    encode: Encode::Weighted {
        plain: |values, bytes| encode(Weighted { values, importance: &[] }, bytes),
        weighted: encode,
    },
    decode,
};

per_level! {
    fn encode(rows: Weighted<'_>, bytes: &mut [u8]) {
        batch::encode::<Q4>(rows, bytes)
    }
}

pub(super) struct Q4;

impl AffineFormat<32> for Q4 {
    const MAX_CODE: i32 = 15;
    const MAX_SCALE: i32 = 63;
    const STEPS: Steps = Steps { first: -1.0, delta: 0.1, count: 20 };
    const ABSOLUTE: bool = false;
    const SIGMA_DIVISOR: f32 = 128.0;

    fn search(x: [&[Lanes; 32]; 2], weights: [&[Lanes; 32]; 2], weighted: bool, fits: &mut [AffineFit; 2]) {
        lanes::affine_32(x, weights, Self::MAX_CODE, if weighted { WEIGHTED_STEPS } else { Self::STEPS }, fits);
    }
}

impl Coder for Q4 {
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

    /// Layout: scale and minimum (half precision), 12 bytes of sub-block scales, then 4 x 32 bytes: the low nibbles are
    /// codes of one sub-block, the high nibbles of the next.
    #[inline(always)]
    fn pack(block: &AffineBlock, bytes: &mut [u8]) {
        bytes[..2].copy_from_slice(&block.scale.to_le_bytes());
        bytes[2..4].copy_from_slice(&block.min.to_le_bytes());
        bytes[4..16].copy_from_slice(&pack_scales(&block.scales, &block.mins));
        let (codes, _) = block.codes.as_chunks::<64>();
        for (bytes, codes) in bytes[16..].as_chunks_mut::<32>().0.iter_mut().zip(codes) {
            let (low, high) = codes.split_at(32);
            for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
                *byte = low | high << 4;
            }
        }
    }
}

/// Eight pairs of 6-bit numbers in 12 bytes: four and four whole in the low bits of 8 bytes, the others' low nibbles side by
/// side in 4 bytes and their high bits on top of the first 8.
#[inline(always)]
pub(super) fn pack_scales(scales: &[u8; 16], mins: &[u8; 16]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for j in 0..4 {
        bytes[j] = scales[j] | scales[j + 4] >> 4 << 6;
        bytes[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        bytes[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    bytes
}

/// The inverse of [`pack_scales`].
#[inline(always)]
pub(super) fn unpack_scales(bytes: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = bytes[j] & 63;
        mins[j] = bytes[j + 4] & 63;
        scales[j + 4] = bytes[j + 8] & 15 | bytes[j] >> 6 << 4;
        mins[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

per_level! {
    fn decode(bytes: &[u8], values: &mut [f32]) {
        let n = turns(32);
        for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<SUPER>().0) {
            let scale = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
            let min = f16_to_f32(u16::from_le_bytes([block[2], block[3]]));
            let (scales, mins) = unpack_scales(&block[4..16]);
            let (values, _) = values.as_chunks_mut::<64>();
            for (j, (values, bytes)) in values.iter_mut().zip(block[16..].as_chunks::<32>().0).enumerate() {
                let (low, high) = values.split_at_mut(32);
                let (d, m) = (scale * f32::from(scales[2 * j]), min * f32::from(mins[2 * j]));
                for (value, byte) in low[..n].iter_mut().zip(&bytes[..n]) {
                    *value = d * f32::from(byte & 15) - m;
                }
                let (d, m) = (scale * f32::from(scales[2 * j + 1]), min * f32::from(mins[2 * j + 1]));
                for (value, byte) in high[..n].iter_mut().zip(&bytes[..n]) {
                    *value = d * f32::from(byte >> 4) - m;
                }
            }
        }
    }
}

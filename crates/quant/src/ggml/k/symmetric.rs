//! Q3_K and Q6_K: sub-blocks of 16 values with a signed scale, coded in turn on a grid of the super-block.

use crate::float::{f16_to_f32, f32_to_f16_bits};
use crate::simd::per_level;

use super::affine::{importance_weights, sum_of_squares};
use super::batch::{BatchCodes, SUPER};
use super::lanes::{self, SymmetricFit};
use super::search::{self, ZERO, nearest};
use super::vector::{Ints, LANES, Lanes, Mask, lanes_only};

/// A coded super-block.
pub(super) struct SymmetricBlock {
    /// Bits of a half-precision float.
    pub scale: u16,
    pub scales: [i8; 16],
    pub codes: [u8; SUPER],
}

impl Default for SymmetricBlock {
    fn default() -> Self {
        Self { scale: 0, scales: [0; 16], codes: [0; SUPER] }
    }
}

/// Half the number of codes of Q3_K, of Q6_K, and of the sub-block scales of Q3_K.
const Q3_HALF: i32 = 4;
const Q6_HALF: i32 = 32;
const Q3_SCALE_HALF: i32 = 32;

/// Q3_K of one super-block.
pub(super) fn q3(x: &[f32; SUPER], importance: Option<&[f32; SUPER]>) -> SymmetricBlock {
    let mut block = SymmetricBlock::default();
    let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
    let sigma2 = x.iter().fold(0.0, |sum, x| sum + x * x) / 128.0;
    for (j, (x, codes)) in x.as_chunks::<16>().0.iter().zip(block.codes.as_chunks_mut::<16>().0).enumerate() {
        scales[j] = match importance {
            Some(importance) => {
                let mut weights = [0.0; 16];
                for ((w, &x), &i) in weights.iter_mut().zip(x).zip(&importance[16 * j..]) {
                    *w = i * (sigma2 + x * x).sqrt();
                }
                sums[j] = weights.iter().fold(0.0, |sum, w| sum + w);
                search::symmetric(x, &weights, Q3_HALF, codes)
            }
            None => search::symmetric_descent(x, Q3_HALF, codes),
        };
    }
    let mut scale_codes = [0u8; 16];
    let step = if importance.is_some() {
        search::symmetric(&scales, &sums, Q3_SCALE_HALF, &mut scale_codes)
    } else {
        let largest = search::extreme(&scales).0;
        let inverse = -32.0 / largest;
        if largest != 0.0 {
            for (code, scale) in scale_codes.iter_mut().zip(scales) {
                *code = (i32::from(nearest(inverse * scale) as i8).clamp(-32, 31) + 32) as u8;
            }
            1.0 / inverse
        } else {
            0.0
        }
    };
    block.scale = f32_to_f16_bits(step);
    block.scales = scale_codes.map(|code| code as i8 - 32);
    requantize(x, &mut block, Q3_HALF);
    block
}

/// Q6_K of one super-block.
pub(super) fn q6(x: &[f32; SUPER], importance: Option<&[f32; SUPER]>) -> SymmetricBlock {
    let mut block = SymmetricBlock::default();
    let mut scales = [0.0; 16];
    for (j, (x, codes)) in x.as_chunks::<16>().0.iter().zip(block.codes.as_chunks_mut::<16>().0).enumerate() {
        let weights = match importance {
            Some(importance) => importance.as_chunks::<16>().0[j],
            None => x.map(|x| x * x),
        };
        scales[j] = search::symmetric(x, &weights, Q6_HALF, codes);
    }
    let (largest, magnitude) = search::extreme(&scales);
    if magnitude < ZERO {
        return SymmetricBlock::default();
    }
    let inverse = -128.0 / largest;
    block.scale = f32_to_f16_bits(1.0 / inverse);
    block.scales = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    requantize(x, &mut block, Q6_HALF);
    block
}

/// Codes of values on the grid as it is stored; where the stored scale is zero, the codes of the search stay.
fn requantize(x: &[f32; SUPER], block: &mut SymmetricBlock, half: i32) {
    let step = f16_to_f32(block.scale);
    let sub_blocks = x.as_chunks::<16>().0.iter().zip(block.codes.as_chunks_mut::<16>().0);
    for ((x, codes), scale) in sub_blocks.zip(block.scales) {
        let scale = step * f32::from(scale);
        if scale != 0.0 {
            for (code, &x) in codes.iter_mut().zip(x) {
                *code = (nearest(x / scale).min(half - 1).max(-half) + half) as u8;
            }
        }
    }
}

/// Q3_K of one super-block per lane, like [`q3`].
pub(super) fn q3_many(
    x: &[Lanes; SUPER],
    importance: Option<&[Lanes; SUPER]>,
    blocks: &mut [SymmetricBlock; LANES],
    codes: &mut BatchCodes,
) -> Mask {
    match importance {
        Some(importance) => q3_weighted(x, importance, blocks, codes),
        None => {
            q3_plain(x, blocks, codes);
            Mask::NONE
        }
    }
}

fn q3_plain(x: &[Lanes; SUPER], blocks: &mut [SymmetricBlock; LANES], codes: &mut BatchCodes) {
    let mut scales = [Lanes::ZERO; 16];
    for (j, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<4>().0).enumerate() {
        lanes::symmetric_descent(x, Q3_HALF, codes, &mut scales[j]);
    }
    let (largest, _) = lanes::extreme(&scales);
    let inverse = Lanes::all(-32.0) / largest;
    let none = largest.eq(Lanes::ZERO);
    let scale_codes = scales.map(|scale| {
        let code = (inverse * scale).nearest().sign_extend_byte().clamp(-32, 31);
        none.pick_ints(Ints::all(-32), code)
    });
    let step = none.pick(Lanes::ZERO, Lanes::all(1.0) / inverse).to_f16();
    store(blocks, step, &scale_codes);
    requantize_lanes(x, Lanes::from_f16(step), &scale_codes, Q3_HALF, None, codes);
}

fn q3_weighted(
    x: &[Lanes; SUPER],
    importance: &[Lanes; SUPER],
    blocks: &mut [SymmetricBlock; LANES],
    codes: &mut BatchCodes,
) -> Mask {
    let mut fits = [SymmetricFit::NONE; 16];
    let mut sums = [Lanes::ZERO; 16];
    let mut squares = Lanes::ZERO;
    sum_of_squares(x, &mut squares);
    let sigma2 = squares / Lanes::all(128.0);
    for (j, x) in x.as_chunks::<16>().0.iter().enumerate() {
        let mut weights = [Lanes::ZERO; 16];
        importance_weights(x, &importance[16 * j..], sigma2, &mut weights, &mut sums[j]);
        lanes::symmetric(x, &weights, Q3_HALF, &mut fits[j]);
    }
    let scales = fits.map(|fit| fit.scale);
    let mut grid = SymmetricFit::NONE;
    lanes::symmetric(&scales, &sums, Q3_SCALE_HALF, &mut grid);
    let scale_codes = scales.map(|scale| grid.code(scale, Q3_SCALE_HALF).plus(-32));
    let step = grid.scale.to_f16();
    store(blocks, step, &scale_codes);
    requantize_lanes(x, Lanes::from_f16(step), &scale_codes, Q3_HALF, Some(&fits), codes);
    fits.iter().fold(grid.odd, |odd, fit| odd | fit.odd)
}

/// Q6_K of one super-block per lane, like [`q6`].
pub(super) fn q6_many(
    x: &[Lanes; SUPER],
    importance: Option<&[Lanes; SUPER]>,
    blocks: &mut [SymmetricBlock; LANES],
    codes: &mut BatchCodes,
) -> Mask {
    let mut fits = [SymmetricFit::NONE; 16];
    for (j, x) in x.as_chunks::<16>().0.iter().enumerate() {
        match importance {
            Some(importance) => lanes::symmetric(x, &importance.as_chunks::<16>().0[j], Q6_HALF, &mut fits[j]),
            None => lanes::symmetric_squares(x, Q6_HALF, &mut fits[j]),
        }
    }
    let scales = fits.map(|fit| fit.scale);
    let (largest, magnitude) = lanes::extreme(&scales);
    let inverse = Lanes::all(-128.0) / largest;
    let scale_codes = scales.map(|scale| (inverse * scale).nearest().min(127));
    let step = (Lanes::all(1.0) / inverse).to_f16();
    store(blocks, step, &scale_codes);
    requantize_lanes(x, Lanes::from_f16(step), &scale_codes, Q6_HALF, Some(&fits), codes);
    // A block of zeros is all zero bytes, which the search does not give; it is rare enough to be coded alone.
    fits.iter().fold(magnitude.lt(Lanes::all(ZERO)), |odd, fit| odd | fit.odd)
}

fn store(blocks: &mut [SymmetricBlock; LANES], step: [u16; LANES], scales: &[Ints; 16]) {
    for (n, block) in blocks.iter_mut().enumerate() {
        block.scale = step[n];
        for (code, scale) in block.scales.iter_mut().zip(scales) {
            *code = scale.0[n] as i8;
        }
    }
}

per_level! {
    /// Like [`requantize`]; without fits the codes of the search are in `codes` already.
    fn requantize_lanes(
        x: &[Lanes; SUPER],
        step: Lanes,
        scales: &[Ints; 16],
        half: i32,
        fits: Option<&[SymmetricFit; 16]>,
        codes: &mut BatchCodes,
    ) {
        for (j, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<4>().0).enumerate() {
            let scale = step * scales[j].to_f32();
            let gone = scale.eq(Lanes::ZERO);
            let any_gone = gone.any();
            for (codes, x) in codes.iter_mut().zip(x.as_chunks::<4>().0) {
                let mut words = [0; LANES];
                for (k, &x) in x.iter().enumerate() {
                    lanes_only();
                    let mut code = (x / scale).nearest().clamp(-half, half - 1).plus(half);
                    if any_gone {
                        let searched = fits.map_or(Ints::from_byte(k, *codes), |fits| fits[j].code(x, half));
                        code = gone.pick_ints(searched, code);
                    }
                    words = code.into_byte(k, words);
                }
                *codes = words;
            }
        }
    }
}

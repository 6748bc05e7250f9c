//! Q2_K, Q4_K and Q5_K: sub-blocks with a scale and a minimum, both coded in turn on a grid of the super-block.

use crate::float::{f16_to_f32, f32_to_f16_bits};
use crate::simd::per_level;

use super::batch::{BatchCodes, SUPER, WEIGHTED_STEPS};
use super::lanes::{self, AffineFit};
use super::search::{self, Steps, nearest};
use super::vector::{Ints, LANES, Lanes, Mask, lanes_only};

/// What the formats differ in; sub-blocks have `SUB` values.
pub(super) trait AffineFormat<const SUB: usize> {
    /// Largest code of a value.
    const MAX_CODE: i32;
    /// Largest code of a scale or minimum.
    const MAX_SCALE: i32;
    /// The search without importance.
    const STEPS: Steps;
    /// Without importance: weights are magnitudes and errors count by magnitude. Otherwise the root mean square of the
    /// sub-block is added to the weight, and errors count by their squares.
    const ABSOLUTE: bool;
    /// With importance: `sigma2` is the sum of squares of the super-block divided by this.
    const SIGMA_DIVISOR: f32;

    /// The search of two sub-blocks in lanes.
    fn search(x: [&[Lanes; SUB]; 2], weights: [&[Lanes; SUB]; 2], weighted: bool, fits: &mut [AffineFit; 2]);
}

/// A coded super-block. Formats with 8 sub-blocks use the first 8 scales and minima.
pub(super) struct AffineBlock {
    /// Bits of half-precision floats.
    pub scale: u16,
    pub min: u16,
    pub scales: [u8; 16],
    pub mins: [u8; 16],
    pub codes: [u8; SUPER],
}

impl Default for AffineBlock {
    fn default() -> Self {
        Self { scale: 0, min: 0, scales: [0; 16], mins: [0; 16], codes: [0; SUPER] }
    }
}

/// Codes one super-block.
pub(super) fn one<F: AffineFormat<SUB>, const SUB: usize>(
    x: &[f32; SUPER],
    importance: Option<&[f32; SUPER]>,
) -> AffineBlock {
    let mut block = AffineBlock::default();
    let (mut scales, mut mins, mut sums) = ([0.0; 16], [0.0; 16], [0.0; 16]);
    let count = SUPER / SUB;
    let sigma2 = x.iter().fold(0.0, |sum, x| sum + x * x) / F::SIGMA_DIVISOR;
    for (j, x) in x.as_chunks::<SUB>().0.iter().enumerate() {
        let codes = &mut block.codes[SUB * j..][..SUB];
        let mut weights = [0.0; SUB];
        (scales[j], mins[j]) = match importance {
            Some(importance) => {
                for ((w, &x), &i) in weights.iter_mut().zip(x).zip(&importance[SUB * j..]) {
                    *w = i * (sigma2 + x * x).sqrt();
                }
                sums[j] = weights.iter().fold(0.0, |sum, w| sum + w);
                search::affine(x, &weights, F::MAX_CODE, WEIGHTED_STEPS, false, codes)
            }
            None => {
                let mean = (x.iter().fold(0.0, |sum, x| sum + x * x) / SUB as f32).sqrt();
                for (w, &x) in weights.iter_mut().zip(x) {
                    *w = if F::ABSOLUTE { x.abs() } else { mean + x.abs() };
                }
                search::affine(x, &weights, F::MAX_CODE, F::STEPS, F::ABSOLUTE, codes)
            }
        };
    }
    let (sums, weighted) = (&sums[..count], importance.is_some());
    block.scale = f32_to_f16_bits(grid::<F, SUB>(&scales[..count], sums, weighted, &mut block.scales));
    block.min = f32_to_f16_bits(grid::<F, SUB>(&mins[..count], sums, weighted, &mut block.mins));
    for (j, (x, codes)) in x.as_chunks::<SUB>().0.iter().zip(block.codes.as_chunks_mut::<SUB>().0).enumerate() {
        let scale = f16_to_f32(block.scale) * f32::from(block.scales[j]);
        let min = f16_to_f32(block.min) * f32::from(block.mins[j]);
        if scale != 0.0 {
            for (code, &x) in codes.iter_mut().zip(x) {
                *code = nearest((x + min) / scale).min(F::MAX_CODE).max(0) as u8;
            }
        }
    }
    block
}

/// Codes the scales (or minima) of sub-blocks, and returns the step of their grid.
fn grid<F: AffineFormat<SUB>, const SUB: usize>(
    scales: &[f32],
    weights: &[f32],
    weighted: bool,
    codes: &mut [u8; 16],
) -> f32 {
    let limit = F::MAX_SCALE as u8;
    let step = if weighted {
        search::positive(scales, weights, F::MAX_SCALE, &mut codes[..scales.len()])
    } else {
        let max = scales.iter().fold(0.0, |max, &scale| if scale > max { scale } else { max });
        let inverse = if max > 0.0 { F::MAX_SCALE as f32 / max } else { 0.0 };
        for (code, scale) in codes.iter_mut().zip(scales) {
            *code = nearest(inverse * scale) as u8;
        }
        max / F::MAX_SCALE as f32
    };
    for code in codes {
        *code = (*code).min(limit);
    }
    step
}

/// Codes one super-block per lane, like [`one`].
pub(super) fn many<F: AffineFormat<SUB>, const SUB: usize>(
    x: &[Lanes; SUPER],
    importance: Option<&[Lanes; SUPER]>,
    blocks: &mut [AffineBlock; LANES],
    codes: &mut BatchCodes,
) -> Mask {
    let count = SUPER / SUB;
    let (mut scales, mut mins, mut sums) = ([Lanes::ZERO; 16], [Lanes::ZERO; 16], [Lanes::ZERO; 16]);
    let mut fits = [AffineFit::NONE; 16];
    let mut squares = Lanes::ZERO;
    if importance.is_some() {
        sum_of_squares(x, &mut squares);
    }
    let sigma2 = squares / Lanes::all(F::SIGMA_DIVISOR);
    for (pair, x) in x.as_chunks::<SUB>().0.as_chunks::<2>().0.iter().enumerate() {
        let mut weights = [[Lanes::ZERO; SUB]; 2];
        for (k, (weights, x)) in weights.iter_mut().zip(x).enumerate() {
            let j = 2 * pair + k;
            match importance {
                Some(importance) => importance_weights(x, &importance[SUB * j..], sigma2, weights, &mut sums[j]),
                None => plain_weights(x, F::ABSOLUTE, weights),
            }
        }
        let found = &mut fits.as_chunks_mut::<2>().0[pair];
        F::search([&x[0], &x[1]], [&weights[0], &weights[1]], importance.is_some(), found);
    }
    for (j, fit) in fits[..count].iter().enumerate() {
        (scales[j], mins[j]) = (fit.scale, fit.min);
    }
    let weights = importance.map(|_| &sums[..count]);
    let (mut scale_codes, mut min_codes) = ([Ints::all(0); 16], [Ints::all(0); 16]);
    let scale = grid_lanes(&scales[..count], weights, F::MAX_SCALE, &mut scale_codes).to_f16();
    let min = grid_lanes(&mins[..count], weights, F::MAX_SCALE, &mut min_codes).to_f16();
    let (scale_step, min_step) = (Lanes::from_f16(scale), Lanes::from_f16(min));
    for (j, (x, codes)) in x.as_chunks::<SUB>().0.iter().zip(codes.chunks_exact_mut(SUB / 4)).enumerate() {
        let stored = (scale_step * scale_codes[j].to_f32(), min_step * min_codes[j].to_f32());
        requantize_lanes(x, stored, F::MAX_CODE, &fits[j], codes);
    }
    for (n, block) in blocks.iter_mut().enumerate() {
        (block.scale, block.min) = (scale[n], min[n]);
        for j in 0..count {
            block.scales[j] = scale_codes[j].0[n] as u8;
            block.mins[j] = min_codes[j].0[n] as u8;
        }
    }
    fits[..count].iter().fold(Mask::NONE, |odd, fit| odd | fit.odd)
}

per_level! {
    /// Codes of values on the grid as it is stored, a scale and a minimum; where the stored scale is zero, the codes of the
    /// search stay.
    fn requantize_lanes(
        x: &[Lanes],
        stored: (Lanes, Lanes),
        max_code: i32,
        fit: &AffineFit,
        codes: &mut [[u32; LANES]],
    ) {
        let gone = stored.0.eq(Lanes::ZERO);
        let any_gone = gone.any();
        for (codes, x) in codes.iter_mut().zip(x.as_chunks::<4>().0) {
            let mut words = [0; LANES];
            for (k, &x) in x.iter().enumerate() {
                lanes_only();
                let mut code = ((x + stored.1) / stored.0).nearest().clamp(0, max_code);
                if any_gone {
                    code = gone.pick_ints(fit.code(x, max_code), code);
                }
                words = code.into_byte(k, words);
            }
            *codes = words;
        }
    }
}

per_level! {
    pub(super) fn sum_of_squares(x: &[Lanes], result: &mut Lanes) {
        let mut sum = Lanes::ZERO;
        for &x in x {
            sum = sum + x * x;
        }
        *result = sum;
    }
}

per_level! {
    /// Weights that grow with the importance of the column and the size of the value among those around it, and their sum.
    pub(super) fn importance_weights(
        x: &[Lanes],
        importance: &[Lanes],
        sigma2: Lanes,
        weights: &mut [Lanes],
        total: &mut Lanes,
    ) {
        let mut sum = Lanes::ZERO;
        for ((w, &x), &i) in weights.iter_mut().zip(x).zip(importance) {
            lanes_only();
            *w = i * (sigma2 + x * x).sqrt();
            sum = sum + *w;
        }
        *total = sum;
    }
}

per_level! {
    fn plain_weights(x: &[Lanes], absolute: bool, weights: &mut [Lanes]) {
        let mut mean = Lanes::ZERO;
        if !absolute {
            sum_of_squares(x, &mut mean);
            mean = (mean / Lanes::all(x.len() as f32)).sqrt();
        }
        for (w, &x) in weights.iter_mut().zip(x) {
            lanes_only();
            *w = mean + x.abs();
        }
    }
}

/// Codes the scales (or minima) of sub-blocks, and returns the steps of their grids.
fn grid_lanes(scales: &[Lanes], weights: Option<&[Lanes]>, max_scale: i32, codes: &mut [Ints; 16]) -> Lanes {
    let mut step = Lanes::ZERO;
    if let Some(weights) = weights {
        lanes::positive(scales, weights, max_scale, &mut codes[..scales.len()], &mut step);
    } else {
        let steps = Lanes::all(max_scale as f32);
        let max = scales.iter().fold(Lanes::ZERO, |max, scale| scale.max(max));
        let inverse = max.gt(Lanes::ZERO).pick(steps / max, Lanes::ZERO);
        for (code, &scale) in codes.iter_mut().zip(scales) {
            *code = (inverse * scale).nearest().low_bits(255);
        }
        step = max / steps;
    }
    for code in codes {
        *code = code.min(max_scale);
    }
    step
}

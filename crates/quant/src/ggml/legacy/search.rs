//! Scales that minimise the error weighted by importance: candidates are tried in a fixed order, 16 blocks at a time.
//!
//! Only the loops over values are compiled per instruction set: larger functions come out slower, not faster.

use crate::ggml::block::Weighted;
use crate::ggml::codes::{BLOCK, whole_to_byte};
use crate::ggml::lanes::{LANES, largest, map, nearest, sums_of_squares, transpose, transpose_codes, zip};
use crate::simd::per_level;

type Lanes = [f32; LANES];

/// A block per lane: value `i` of each is `[i]`.
pub(super) type Blocks = [[f32; LANES]; BLOCK];

/// Blocks whose largest magnitude is below this are zero.
const NOTHING: f32 = 1e-15;

/// What a search settled on, per lane.
pub(super) struct Found {
    pub scale: [f32; LANES],
    pub min: [f32; LANES],
    /// By value, then lane.
    codes: [[u8; LANES]; BLOCK],
}

impl Found {
    /// Codes of the block in each lane.
    pub(super) fn codes(&self) -> [[u8; BLOCK]; LANES] {
        transpose_codes(&self.codes)
    }
}

/// Rows of blocks and what the weights of their values rest on.
pub(super) struct Rows<'a> {
    values: &'a [[f32; BLOCK]],
    importance: &'a [[f32; BLOCK]],
    /// Mean square of each row.
    energy: Vec<f32>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(rows: Weighted<'a>) -> Self {
        let columns = rows.importance.len();
        Self {
            values: rows.values.as_chunks().0,
            importance: rows.importance.as_chunks().0,
            energy: sums_of_squares(rows.values, columns).iter().map(|sum| sum / columns as f32).collect(),
        }
    }

    /// Values and weights of the blocks from `first` on, as many as there are lanes or blocks left.
    pub(super) fn lanes(&self, first: usize) -> (Blocks, Blocks) {
        let last = self.values.len().min(first + LANES);
        let x = transpose(&self.values[first..last]);
        let (mut columns, mut sigma2) = ([[0.0; BLOCK]; LANES], [0.0; LANES]);
        for block in first..last {
            columns[block - first] = self.importance[block % self.importance.len()];
            sigma2[block - first] = self.energy[block / self.importance.len()];
        }
        let mut weights: Blocks = transpose(&columns);
        weigh(&x, &sigma2, &mut weights);
        (x, weights)
    }
}

per_level! {
    /// Turns importance into weights.
    fn weigh(x: &Blocks, sigma2: &Lanes, weights: &mut Blocks) {
        for (w, x) in weights.iter_mut().zip(x) {
            for n in 0..LANES {
                w[n] *= (sigma2[n] + x[n] * x[n]).sqrt();
            }
        }
    }
}

/// The scale whose codes, from 0 to `2 * half - 1` with zero at `half`, fit best; 19 candidates.
pub(super) fn symmetric(x: &Blocks, weights: &Blocks, half: f32) -> Found {
    let (max, magnitude) = largest(x);
    let mut inverse = map(max, |max| -half / max);
    let (mut lx, mut l2) = ([0.0; LANES], [0.0; LANES]);
    symmetric_sums(x, weights, half, &inverse, &mut lx, &mut l2);
    let mut scale = zip(lx, l2, |lx, l2| if l2 == 0.0 { 0.0 } else { lx / l2 });
    let mut best = zip(scale, lx, |scale, lx| scale * lx);
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let trial = map(max, |max| -(half + 0.1 * f32::from(step)) / max);
        symmetric_sums(x, weights, half, &trial, &mut lx, &mut l2);
        for n in 0..LANES {
            let better = (l2[n] > 0.0) & (lx[n] * lx[n] > best[n] * l2[n]);
            let fitted = lx[n] / l2[n];
            inverse[n] = if better { trial[n] } else { inverse[n] };
            scale[n] = if better { fitted } else { scale[n] };
            best[n] = if better { fitted * lx[n] } else { best[n] };
        }
    }
    let mut codes = [[0; LANES]; BLOCK];
    for (codes, x) in codes.iter_mut().zip(x) {
        for n in 0..LANES {
            let code = limit(nearest(inverse[n] * x[n]), -half, half - 1.0);
            codes[n] = whole_to_byte(if magnitude[n] < NOTHING { 0.0 } else { code + half });
        }
    }
    Found { scale: zip(scale, magnitude, |s, m| if m < NOTHING { 0.0 } else { s }), min: [0.0; LANES], codes }
}

per_level! {
    /// Weighted sums of values times codes, and of codes squared.
    fn symmetric_sums(x: &Blocks, weights: &Blocks, half: f32, inverse: &Lanes, lx: &mut Lanes, l2: &mut Lanes) {
        let (mut sum_lx, mut sum_l2) = ([0.0; LANES], [0.0; LANES]);
        for (x, w) in x.iter().zip(weights) {
            for n in 0..LANES {
                let l = limit(nearest(inverse[n] * x[n]), -half, half - 1.0);
                sum_lx[n] += w[n] * x[n] * l;
                sum_l2[n] += w[n] * l * l;
            }
        }
        (*lx, *l2) = (sum_lx, sum_l2);
    }
}

/// The scale and minimum (at most 0) whose codes, from 0 to `last`, fit best; 37 candidates.
pub(super) fn affine(x: &Blocks, weights: &Blocks, last: f32) -> Found {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = zip(weights[0], x[0], |w, x| w * x);
    for (x, w) in x.iter().zip(weights).skip(1) {
        for n in 0..LANES {
            min[n] = if x[n] < min[n] { x[n] } else { min[n] };
            max[n] = if x[n] > max[n] { x[n] } else { max[n] };
            sum_w[n] += w[n];
            sum_x[n] += w[n] * x[n];
        }
    }
    min = map(min, |min| if min > 0.0 { 0.0 } else { min });
    let flat: [bool; LANES] = std::array::from_fn(|n| max[n] <= min[n]);
    // Codes are those of the candidate kept last: of its inverse scale and of the minimum that held when it was tried.
    let mut inverse = zip(max, min, |max, min| last / (max - min));
    let mut from = min;
    let mut scale = map(inverse, |i| 1.0 / i);
    let (mut codes, mut sums, mut best) = ([[0.0; LANES]; BLOCK], [[0.0; LANES]; 3], [0.0; LANES]);
    affine_sums(x, weights, &Candidate { inverse, from, last }, &mut codes, &mut sums);
    affine_error(x, weights, &codes, &scale, &min, &mut best);
    for step in 0..=36u8 {
        let trial = zip(max, min, |max, min| (-0.9 + 0.05 * f32::from(step) + last) / (max - min));
        affine_sums(x, weights, &Candidate { inverse: trial, from: min, last }, &mut codes, &mut sums);
        let [sum_l, sum_l2, sum_xl] = sums;
        let (mut fitted, mut offset, mut solvable) = ([0.0; LANES], [0.0; LANES], [false; LANES]);
        for n in 0..LANES {
            let determinant = sum_w[n] * sum_l2[n] - sum_l[n] * sum_l[n];
            solvable[n] = determinant > 0.0;
            fitted[n] = (sum_w[n] * sum_xl[n] - sum_x[n] * sum_l[n]) / determinant;
            offset[n] = (sum_l2[n] * sum_x[n] - sum_l[n] * sum_xl[n]) / determinant;
            let above = offset[n] > 0.0;
            fitted[n] = if above { sum_xl[n] / sum_l2[n] } else { fitted[n] };
            offset[n] = if above { 0.0 } else { offset[n] };
        }
        let mut trial_error = [0.0; LANES];
        affine_error(x, weights, &codes, &fitted, &offset, &mut trial_error);
        for n in 0..LANES {
            let better = solvable[n] & (trial_error[n] < best[n]);
            inverse[n] = if better { trial[n] } else { inverse[n] };
            from[n] = if better { min[n] } else { from[n] };
            best[n] = if better { trial_error[n] } else { best[n] };
            scale[n] = if better { fitted[n] } else { scale[n] };
            min[n] = if better { offset[n] } else { min[n] };
        }
    }
    let kept = Candidate { inverse, from, last };
    let mut codes = [[0; LANES]; BLOCK];
    for (codes, x) in codes.iter_mut().zip(x) {
        for n in 0..LANES {
            codes[n] = whole_to_byte(if flat[n] { 0.0 } else { kept.code(n, x[n]) });
        }
    }
    Found { scale: std::array::from_fn(|n| if flat[n] { 0.0 } else { scale[n] }), min, codes }
}

/// How codes of [`affine`] follow from values: `(value - from) * inverse`, rounded, from 0 to `last`.
struct Candidate {
    inverse: [f32; LANES],
    from: [f32; LANES],
    last: f32,
}

impl Candidate {
    #[inline(always)]
    fn code(&self, lane: usize, value: f32) -> f32 {
        limit(nearest(self.inverse[lane] * (value - self.from[lane])), 0.0, self.last)
    }
}

per_level! {
    /// A candidate's codes, and the weighted sums of them, of their squares, and of them times values.
    fn affine_sums(x: &Blocks, weights: &Blocks, candidate: &Candidate, codes: &mut Blocks, sums: &mut [Lanes; 3]) {
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for ((x, w), codes) in x.iter().zip(weights).zip(codes) {
            for n in 0..LANES {
                let l = candidate.code(n, x[n]);
                sum_l[n] += w[n] * l;
                sum_l2[n] += w[n] * l * l;
                sum_xl[n] += w[n] * l * x[n];
                codes[n] = l;
            }
        }
        *sums = [sum_l, sum_l2, sum_xl];
    }
}

per_level! {
    /// The weighted square error of codes with a scale and minimum.
    fn affine_error(x: &Blocks, weights: &Blocks, codes: &Blocks, scale: &Lanes, min: &Lanes, error: &mut Lanes) {
        let mut sum = [0.0; LANES];
        for ((x, w), codes) in x.iter().zip(weights).zip(codes) {
            for n in 0..LANES {
                let difference = scale[n] * codes[n] + min[n] - x[n];
                sum[n] += w[n] * (difference * difference);
            }
        }
        *error = sum;
    }
}

/// Between `low` and `high`; `high` for not-a-number. One instruction each, unlike `clamp`.
#[inline(always)]
fn limit(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < high { value } else { high };
    if value > low { value } else { low }
}

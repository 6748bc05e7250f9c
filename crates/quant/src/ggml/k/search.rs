//! Searches for the scale (and minimum) of a few values, one value after the other: the definition of the K-quants.
//!
//! The order of floating-point operations is llama.cpp's, with no multiplication fused into an addition. Vector code in
//! [`super::lanes`] does the same in each lane.

/// Values that are all smaller than this in magnitude count as zero.
pub(super) const ZERO: f32 = 1e-15;

/// Ranges that an affine search tries: `(first + delta * n + codes) / range` for `n` in `0..=count`.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub first: f32,
    pub delta: f32,
    pub count: usize,
}

impl Steps {
    /// Number of code steps that candidate `n` spreads the range over, where codes end at `max_code`.
    #[inline(always)]
    pub fn spread(&self, n: usize, max_code: f32) -> f32 {
        self.first + self.delta * n as f32 + max_code
    }
}

/// The nearest integer, ties to even, for magnitudes up to 2^22; beyond that whatever the low mantissa bits are.
#[inline(always)]
pub(in crate::ggml) fn nearest(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The code of `value` on the affine grid `scale * code + min`, given `1 / scale`.
fn affine_code(inverse: f32, value: f32, min: f32, max_code: i32) -> i32 {
    nearest(inverse * (value - min)).min(max_code).max(0)
}

/// Fits `scale * code - min` with codes `0..=max_code` to `x`; returns the scale and the minimum (as a magnitude) and
/// leaves the codes. The error is the weighted sum of squares, or of magnitudes where `absolute`.
pub(super) fn affine(
    x: &[f32],
    weights: &[f32],
    max_code: i32,
    steps: Steps,
    absolute: bool,
    codes: &mut [u8],
) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&v, &w) in x.iter().zip(weights).skip(1) {
        min = if v < min { v } else { min };
        max = if v > max { v } else { max };
        sum_w += w;
        sum_x += w * v;
    }
    min = if min > 0.0 { 0.0 } else { min };
    if max <= min {
        codes.fill(0);
        return (0.0, -min);
    }
    let error = |scale: f32, min: f32, codes: &[u8]| {
        let mut sum = 0.0;
        for ((&v, &w), &code) in x.iter().zip(weights).zip(codes) {
            let difference = scale * f32::from(code) + min - v;
            sum += w * if absolute { difference.abs() } else { difference * difference };
        }
        sum
    };
    let inverse = max_code as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    for (code, &v) in codes.iter_mut().zip(x) {
        *code = affine_code(inverse, v, min, max_code) as u8;
    }
    let mut best = error(scale, min, codes);
    let mut trial = [0u8; 32];
    let trial = &mut trial[..x.len()];
    for n in 0..=steps.count {
        let inverse = steps.spread(n, max_code as f32) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for ((&v, &w), code) in x.iter().zip(weights).zip(trial.iter_mut()) {
            let l = affine_code(inverse, v, min, max_code);
            *code = l as u8;
            let l = l as f32;
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * v;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let error = error(this_scale, this_min, trial);
            if error < best {
                codes.copy_from_slice(trial);
                (best, scale, min) = (error, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}

/// The value of largest magnitude, and that magnitude; 0 if there is none.
pub(super) fn extreme(x: &[f32]) -> (f32, f32) {
    let (mut value, mut magnitude) = (0.0, 0.0);
    for &v in x {
        if v.abs() > magnitude {
            (value, magnitude) = (v, v.abs());
        }
    }
    (value, magnitude)
}

fn symmetric_code(inverse: f32, value: f32, half: i32) -> i32 {
    nearest(inverse * value).min(half - 1).max(-half)
}

/// Fits `scale * (code - half)` with codes `0..2 * half` to `x` by trying scales near the one that maps the value of
/// largest magnitude to the lowest code; returns the scale and leaves the codes.
pub(super) fn symmetric(x: &[f32], weights: &[f32], half: i32, codes: &mut [u8]) -> f32 {
    let (max, magnitude) = extreme(x);
    if magnitude < ZERO {
        codes.fill(0);
        return 0.0;
    }
    let sums = |inverse: f32| {
        let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
        for (&v, &w) in x.iter().zip(weights) {
            let l = symmetric_code(inverse, v, half) as f32;
            sum_lx += w * v * l;
            sum_l2 += w * l * l;
        }
        (sum_lx, sum_l2)
    };
    let mut chosen = -half as f32 / max;
    let (sum_lx, sum_l2) = sums(chosen);
    let mut scale = if sum_l2 != 0.0 { sum_lx / sum_l2 } else { 0.0 };
    let mut best = scale * sum_lx;
    for n in (-9..=9).filter(|n| *n != 0) {
        let inverse = -(half as f32 + 0.1 * n as f32) / max;
        let (sum_lx, sum_l2) = sums(inverse);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            chosen = inverse;
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    for (code, &v) in codes.iter_mut().zip(x) {
        *code = (symmetric_code(chosen, v, half) + half) as u8;
    }
    scale
}

/// Like [`symmetric`], weighted by the squares of the values, but improves one code at a time for up to five rounds.
pub(super) fn symmetric_descent(x: &[f32], half: i32, codes: &mut [u8]) -> f32 {
    let (max, magnitude) = extreme(x);
    if magnitude < ZERO {
        codes.fill(0);
        return 0.0;
    }
    let inverse = -half as f32 / max;
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    let mut levels = [0i32; 16];
    for (level, &v) in levels.iter_mut().zip(x) {
        *level = symmetric_code(inverse, v, half);
        let (w, l) = (v * v, *level as f32);
        sum_lx += w * v * l;
        sum_l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (level, &v) in levels.iter_mut().zip(x) {
            let (w, l) = (v * v, *level as f32);
            let rest_lx = sum_lx - w * v * l;
            if rest_lx > 0.0 {
                let rest_l2 = sum_l2 - w * l * l;
                let new = nearest(v * rest_l2 / rest_lx).min(half - 1).max(-half);
                if new != *level {
                    let l = new as f32;
                    let (new_lx, new_l2) = (rest_lx + w * v * l, rest_l2 + w * l * l);
                    if new_l2 > 0.0 && new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2 {
                        (*level, sum_lx, sum_l2, changed) = (new, new_lx, new_l2, true);
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    for (code, level) in codes.iter_mut().zip(levels) {
        *code = (level + half) as u8;
    }
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}

/// Fits `scale * code` with codes `0..=max_code` to values that are not negative: the scales and minima of sub-blocks.
/// Tries nine scales, then improves one code at a time for up to five rounds.
pub(in crate::ggml) fn positive(x: &[f32], weights: &[f32], max_code: i32, codes: &mut [u8]) -> f32 {
    let mut max = 0.0;
    for &v in x {
        max = if max > v { max } else { v };
    }
    if max < ZERO {
        codes.fill(0);
        return 0.0;
    }
    let error = |scale: f32, inverse: f32, limit: fn(i32, i32) -> i32| {
        let mut sum = 0.0;
        for (&v, &w) in x.iter().zip(weights) {
            let difference = v - scale * limit(nearest(inverse * v), max_code) as f32;
            sum += w * difference * difference;
        }
        sum
    };
    let mut inverse = max_code as f32 / max;
    let mut best = error(1.0 / inverse, inverse, |l, _| l & 255);
    for n in (-4..=4).filter(|n| *n != 0) {
        let trial = (0.1 * n as f32 + max_code as f32) / max;
        let error = error(1.0 / trial, trial, i32::min);
        if error < best {
            (best, inverse) = (error, trial);
        }
    }
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    for ((code, &v), &w) in codes.iter_mut().zip(x).zip(weights) {
        let level = nearest(inverse * v).min(max_code);
        *code = level as u8;
        let l = level as f32;
        sum_lx += w * v * l;
        sum_l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((code, &v), &w) in codes.iter_mut().zip(x).zip(weights) {
            let l = f32::from(*code);
            let (rest_lx, rest_l2) = (sum_lx - w * v * l, sum_l2 - w * l * l);
            if rest_lx > 0.0 && rest_l2 > 0.0 {
                let new = nearest(v * rest_l2 / rest_lx).min(max_code);
                if new != i32::from(*code) {
                    let l = new as f32;
                    let (new_lx, new_l2) = (rest_lx + w * v * l, rest_l2 + w * l * l);
                    if new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2 {
                        (*code, sum_lx, sum_l2, changed) = (new as u8, new_lx, new_l2, true);
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}

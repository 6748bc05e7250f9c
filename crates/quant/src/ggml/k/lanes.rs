//! The searches of [`super::search`] in sixteen lanes: branches become selections, the arithmetic of a lane stays the same.
//!
//! Codes that are only candidates are rounded as floats, which is faster but differs from [`super::search::nearest`]
//! beyond 2^22. Lanes where that could happen are reported as *odd*, and the caller codes those super-blocks one by one.

use crate::simd::per_level;

use super::search::{Steps, ZERO};
use super::vector::{Ints, LANES, Lanes, Mask, lanes_only};

/// What a byte keeps of an integer.
const BYTE: i32 = 255;

/// Bound below which rounding as floats is exact, with room to spare.
const ROUNDABLE: f32 = 4e6;

/// The result of an affine search.
#[derive(Clone, Copy)]
pub(super) struct AffineFit {
    pub scale: Lanes,
    /// Minimum as a magnitude.
    pub min: Lanes,
    /// Lanes that the caller must code one by one.
    pub odd: Mask,
    /// The codes are those of `inverse * (x - base)`.
    inverse: Lanes,
    base: Lanes,
}

impl AffineFit {
    pub const NONE: Self =
        Self { scale: Lanes::ZERO, min: Lanes::ZERO, odd: Mask::NONE, inverse: Lanes::ZERO, base: Lanes::ZERO };

    /// The code of `x` that the search settled on.
    #[inline(always)]
    pub fn code(&self, x: Lanes, max_code: i32) -> Ints {
        (self.inverse * (x - self.base)).nearest().clamp(0, max_code)
    }
}

per_level! {
    /// [`super::search::affine`] by squares for two sub-blocks of 32 values in each lane.
    pub(super) fn affine_32(
        x: [&[Lanes; 32]; 2],
        weights: [&[Lanes; 32]; 2],
        max_code: i32,
        steps: Steps,
        fits: &mut [AffineFit; 2],
    ) {
        *fits = affine::<32, false>(x, weights, max_code, steps)
    }
}

per_level! {
    /// [`super::search::affine`] by squares for two sub-blocks of 16 values in each lane.
    pub(super) fn affine_16(
        x: [&[Lanes; 16]; 2],
        weights: [&[Lanes; 16]; 2],
        max_code: i32,
        steps: Steps,
        fits: &mut [AffineFit; 2],
    ) {
        *fits = affine::<16, false>(x, weights, max_code, steps)
    }
}

per_level! {
    /// [`super::search::affine`] by magnitudes for two sub-blocks of 16 values in each lane.
    pub(super) fn affine_16_absolute(
        x: [&[Lanes; 16]; 2],
        weights: [&[Lanes; 16]; 2],
        max_code: i32,
        steps: Steps,
        fits: &mut [AffineFit; 2],
    ) {
        *fits = affine::<16, true>(x, weights, max_code, steps)
    }
}

/// Two sub-blocks, so that the divisions of one overlap the sums of the other.
#[inline(always)]
fn affine<const N: usize, const ABSOLUTE: bool>(
    x: [&[Lanes; N]; 2],
    weights: [&[Lanes; N]; 2],
    max_code: i32,
    steps: Steps,
) -> [AffineFit; 2] {
    let max_code = max_code as f32;
    let mut a = AffineSearch::<N>::start::<ABSOLUTE>(x[0], weights[0], max_code);
    let mut b = AffineSearch::<N>::start::<ABSOLUTE>(x[1], weights[1], max_code);
    for n in 0..=steps.count {
        let spread = steps.spread(n, max_code);
        a.aim(spread);
        b.aim(spread);
        // Codes of a range spread over fewer steps cannot exceed the largest code.
        if spread < max_code + 0.45 {
            let limit = |code: Lanes| code.max(Lanes::ZERO);
            a.gather(x[0], weights[0], limit);
            a.solve();
            b.gather(x[1], weights[1], limit);
            b.solve();
        } else {
            let limit = |code: Lanes| code.max(Lanes::ZERO).min(Lanes::all(max_code));
            a.gather(x[0], weights[0], limit);
            a.solve();
            b.gather(x[1], weights[1], limit);
            b.solve();
        }
        a.judge::<ABSOLUTE>(x[0], weights[0]);
        b.judge::<ABSOLUTE>(x[1], weights[1]);
    }
    [a.finish(), b.finish()]
}

struct AffineSearch<const N: usize> {
    /// Extremes of the values.
    low: Lanes,
    high: Lanes,
    sum_w: Lanes,
    sum_x: Lanes,
    constant: Mask,
    odd: Mask,
    /// The best fit so far, and what its codes were computed from.
    scale: Lanes,
    min: Lanes,
    error: Lanes,
    inverse: Lanes,
    base: Lanes,
    /// The candidate.
    trial: Lanes,
    codes: [Lanes; N],
    sum_l: Lanes,
    sum_l2: Lanes,
    sum_xl: Lanes,
    determinant: Lanes,
    new_scale: Lanes,
    new_min: Lanes,
}

impl<const N: usize> AffineSearch<N> {
    #[inline(always)]
    fn start<const ABSOLUTE: bool>(x: &[Lanes; N], weights: &[Lanes; N], max_code: f32) -> Self {
        let (mut low, mut high, mut sum_w) = (x[0], x[0], weights[0]);
        let mut sum_x = sum_w * x[0];
        for (&x, &w) in x.iter().zip(weights).skip(1) {
            low = x.min(low);
            high = x.max(high);
            sum_w = sum_w + w;
            sum_x = sum_x + w * x;
        }
        let zero = Lanes::ZERO;
        let min = zero.min(low);
        let inverse = Lanes::all(max_code) / (high - min);
        let scale = Lanes::all(1.0) / inverse;
        let mut error = zero;
        for (&x, &w) in x.iter().zip(weights) {
            let code = (inverse * (x - min)).round();
            error = error + w * loss::<ABSOLUTE>(scale * code + min - x);
        }
        Self {
            low,
            high,
            sum_w,
            sum_x,
            constant: high.eq(min),
            odd: !sum_x.abs().lt(Lanes::all(f32::INFINITY)),
            scale,
            min,
            error,
            inverse,
            base: min,
            trial: inverse,
            codes: [zero; N],
            sum_l: zero,
            sum_l2: zero,
            sum_xl: zero,
            determinant: zero,
            new_scale: zero,
            new_min: zero,
        }
    }

    /// Sets out to try the range spread over this many steps.
    #[inline(always)]
    fn aim(&mut self, spread: f32) {
        let range = self.high - self.min;
        self.trial = Lanes::all(spread) / range;
        let bound = Lanes::all(ROUNDABLE);
        let above = (self.trial * range).abs().lt(bound);
        let below = (self.trial * (self.low - self.min)).abs().lt(bound);
        self.odd = self.odd | !(above & below);
    }

    #[inline(always)]
    fn gather(&mut self, x: &[Lanes; N], weights: &[Lanes; N], limit: impl Fn(Lanes) -> Lanes) {
        let zero = Lanes::ZERO;
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        let (trial, min) = (self.trial, self.min);
        for ((&x, &w), code) in x.iter().zip(weights).zip(&mut self.codes) {
            let l = limit((trial * (x - min)).round());
            *code = l;
            let wl = w * l;
            sum_l = sum_l + wl;
            sum_l2 = sum_l2 + wl * l;
            sum_xl = sum_xl + wl * x;
        }
        (self.sum_l, self.sum_l2, self.sum_xl) = (sum_l, sum_l2, sum_xl);
    }

    /// The scale and minimum that suit the candidate's codes best.
    #[inline(always)]
    fn solve(&mut self) {
        self.determinant = self.sum_w * self.sum_l2 - self.sum_l * self.sum_l;
        self.new_scale = (self.sum_w * self.sum_xl - self.sum_x * self.sum_l) / self.determinant;
        self.new_min = (self.sum_l2 * self.sum_x - self.sum_l * self.sum_xl) / self.determinant;
        let positive = self.new_min.gt(Lanes::ZERO);
        if positive.any() {
            self.new_min = positive.pick(Lanes::ZERO, self.new_min);
            self.new_scale = positive.pick(self.sum_xl / self.sum_l2, self.new_scale);
        }
    }

    /// Keeps the candidate where it is better.
    #[inline(always)]
    fn judge<const ABSOLUTE: bool>(&mut self, x: &[Lanes; N], weights: &[Lanes; N]) {
        let mut error = Lanes::ZERO;
        let (scale, min) = (self.new_scale, self.new_min);
        for ((&x, &w), &code) in x.iter().zip(weights).zip(&self.codes) {
            error = error + w * loss::<ABSOLUTE>(scale * code + min - x);
        }
        let better = self.determinant.gt(Lanes::ZERO) & error.lt(self.error);
        self.base = better.pick(self.min, self.base);
        self.inverse = better.pick(self.trial, self.inverse);
        self.error = better.pick(error, self.error);
        self.scale = better.pick(scale, self.scale);
        self.min = better.pick(min, self.min);
    }

    #[inline(always)]
    fn finish(self) -> AffineFit {
        // Equal values have code 0.
        let flat = |lanes| self.constant.pick(Lanes::ZERO, lanes);
        let base = self.constant.pick(self.low, self.base);
        let min = self.constant.pick(Lanes::ZERO.min(self.low), self.min);
        AffineFit {
            scale: flat(self.scale),
            min: min.neg(),
            odd: self.odd & !self.constant,
            inverse: flat(self.inverse),
            base,
        }
    }
}

#[inline(always)]
fn loss<const ABSOLUTE: bool>(difference: Lanes) -> Lanes {
    if ABSOLUTE { difference.abs() } else { difference * difference }
}

/// The result of a symmetric search.
#[derive(Clone, Copy)]
pub(super) struct SymmetricFit {
    pub scale: Lanes,
    /// Lanes that the caller must code one by one.
    pub odd: Mask,
    zero: Mask,
    inverse: Lanes,
}

impl SymmetricFit {
    pub const NONE: Self = Self { scale: Lanes::ZERO, odd: Mask::NONE, zero: Mask::NONE, inverse: Lanes::ZERO };

    /// The code of `x` that the search settled on.
    #[inline(always)]
    pub fn code(&self, x: Lanes, half: i32) -> Ints {
        let code = (self.inverse * x).nearest().clamp(-half, half - 1).plus(half);
        self.zero.pick_ints(Ints::all(0), code)
    }
}

/// The value of largest magnitude, and that magnitude.
#[inline(always)]
pub(super) fn extreme(x: &[Lanes]) -> (Lanes, Lanes) {
    let (mut value, mut magnitude) = (Lanes::ZERO, Lanes::ZERO);
    for &x in x {
        let larger = x.abs().gt(magnitude);
        value = larger.pick(x, value);
        magnitude = larger.pick(x.abs(), magnitude);
    }
    (value, magnitude)
}

per_level! {
    /// [`super::search::symmetric`].
    pub(super) fn symmetric(x: &[Lanes; 16], weights: &[Lanes; 16], half: i32, fit: &mut SymmetricFit) {
        *fit = search_symmetric(x, weights, half)
    }
}

per_level! {
    /// [`super::search::symmetric`] weighted by the squares of the values.
    pub(super) fn symmetric_squares(x: &[Lanes; 16], half: i32, fit: &mut SymmetricFit) {
        let mut weights = *x;
        for w in &mut weights {
            lanes_only();
            *w = *w * *w;
        }
        *fit = search_symmetric(x, &weights, half)
    }
}

#[inline(always)]
fn search_symmetric(x: &[Lanes; 16], weights: &[Lanes; 16], half: i32) -> SymmetricFit {
    let (max, magnitude) = extreme(x);
    let mut weighted = [Lanes::ZERO; 16];
    for ((wx, &x), &w) in weighted.iter_mut().zip(x).zip(weights) {
        lanes_only();
        *wx = w * x;
    }
    let mut chosen = Lanes::all(-half as f32) / max;
    let (sum_lx, sum_l2) = symmetric_sums(x, weights, &weighted, chosen, half);
    let infinity = Lanes::all(f32::INFINITY);
    let finite = sum_lx.abs().lt(infinity) & sum_l2.abs().lt(infinity);
    let mut scale = sum_l2.eq(Lanes::ZERO).pick(Lanes::ZERO, sum_lx / sum_l2);
    let mut best = scale * sum_lx;
    for n in -9..=9 {
        if n == 0 {
            continue;
        }
        let inverse = Lanes::all(-(half as f32 + 0.1 * n as f32)) / max;
        let (sum_lx, sum_l2) = symmetric_sums(x, weights, &weighted, inverse, half);
        let better = sum_l2.gt(Lanes::ZERO) & (sum_lx * sum_lx).gt(best * sum_l2);
        let this = sum_lx / sum_l2;
        chosen = better.pick(inverse, chosen);
        scale = better.pick(this, scale);
        best = better.pick(this * sum_lx, best);
    }
    let zero = magnitude.lt(Lanes::all(ZERO));
    SymmetricFit { scale: zero.pick(Lanes::ZERO, scale), odd: !(finite | zero), zero, inverse: chosen }
}

/// Sums of codes times values, and of squares of codes, both weighted; `weighted` are the weights times the values.
#[inline(always)]
fn symmetric_sums(
    x: &[Lanes; 16],
    weights: &[Lanes; 16],
    weighted: &[Lanes; 16],
    inverse: Lanes,
    half: i32,
) -> (Lanes, Lanes) {
    let (low, high) = (Lanes::all(-half as f32), Lanes::all((half - 1) as f32));
    let (mut sum_lx, mut sum_l2) = (Lanes::ZERO, Lanes::ZERO);
    for ((&x, &w), &wx) in x.iter().zip(weights).zip(weighted) {
        let l = (inverse * x).round().min(high).max(low);
        sum_lx = sum_lx + wx * l;
        sum_l2 = sum_l2 + w * l * l;
    }
    (sum_lx, sum_l2)
}

per_level! {
    /// [`super::search::symmetric_descent`].
    pub(super) fn symmetric_descent(x: &[Lanes; 16], half: i32, codes: &mut [[u32; LANES]; 4], scale: &mut Lanes) {
        let (max, magnitude) = extreme(x);
        let inverse = Lanes::all(-half as f32) / max;
        let (mut sum_lx, mut sum_l2) = (Lanes::ZERO, Lanes::ZERO);
        let mut levels = [Ints::all(0); 16];
        for (level, &x) in levels.iter_mut().zip(x) {
            lanes_only();
            *level = (inverse * x).nearest().clamp(-half, half - 1);
            let (w, l) = (x * x, level.to_f32());
            sum_lx = sum_lx + w * x * l;
            sum_l2 = sum_l2 + w * l * l;
        }
        for _ in 0..5 {
            let mut changed = Mask::NONE;
            for (level, &x) in levels.iter_mut().zip(x) {
                lanes_only();
                let (w, l) = (x * x, level.to_f32());
                let rest_lx = sum_lx - w * x * l;
                let rest_l2 = sum_l2 - w * l * l;
                let new = (x * rest_l2 / rest_lx).nearest().clamp(-half, half - 1);
                let l = new.to_f32();
                let (new_lx, new_l2) = (rest_lx + w * x * l, rest_l2 + w * l * l);
                let better = rest_lx.gt(Lanes::ZERO)
                    & new.ne(*level)
                    & new_l2.gt(Lanes::ZERO)
                    & (new_lx * new_lx * sum_l2).gt(sum_lx * sum_lx * new_l2);
                *level = better.pick_ints(new, *level);
                sum_lx = better.pick(new_lx, sum_lx);
                sum_l2 = better.pick(new_l2, sum_l2);
                changed = changed | better;
            }
            if !changed.any() {
                break;
            }
        }
        let zero = magnitude.lt(Lanes::all(ZERO));
        for (codes, levels) in codes.iter_mut().zip(levels.as_chunks::<4>().0) {
            *codes = [0; LANES];
            for (k, level) in levels.iter().enumerate() {
                lanes_only();
                *codes = zero.pick_ints(Ints::all(0), level.plus(half)).into_byte(k, *codes);
            }
        }
        let some = sum_l2.gt(Lanes::ZERO) & !zero;
        *scale = some.pick(sum_lx / sum_l2, Lanes::ZERO);
    }
}

/// The error with codes up to `limit`, of which `bits` are kept.
#[inline(always)]
fn positive_error(x: &[Lanes], weights: &[Lanes], inverse: Lanes, limit: i32, bits: i32) -> Lanes {
    let scale = Lanes::all(1.0) / inverse;
    let mut sum = Lanes::ZERO;
    for (&x, &w) in x.iter().zip(weights) {
        let difference = x - scale * (inverse * x).nearest().min(limit).low_bits(bits).to_f32();
        sum = sum + w * difference * difference;
    }
    sum
}

per_level! {
    /// [`super::search::positive`]; codes are what is left of them in a byte.
    pub(super) fn positive(x: &[Lanes], weights: &[Lanes], max_code: i32, codes: &mut [Ints], scale: &mut Lanes) {
        let mut max = Lanes::ZERO;
        for &x in x {
            max = max.max(x);
        }
        let mut inverse = Lanes::all(max_code as f32) / max;
        let mut best = positive_error(x, weights, inverse, i32::MAX, BYTE);
        for n in -4..=4 {
            if n == 0 {
                continue;
            }
            let trial = Lanes::all(0.1 * n as f32 + max_code as f32) / max;
            let error = positive_error(x, weights, trial, max_code, -1);
            let better = error.lt(best);
            best = better.pick(error, best);
            inverse = better.pick(trial, inverse);
        }
        let (mut sum_lx, mut sum_l2) = (Lanes::ZERO, Lanes::ZERO);
        for ((code, &x), &w) in codes.iter_mut().zip(x).zip(weights) {
            lanes_only();
            let level = (inverse * x).nearest().min(max_code);
            *code = level.low_bits(BYTE);
            let l = level.to_f32();
            sum_lx = sum_lx + w * x * l;
            sum_l2 = sum_l2 + w * l * l;
        }
        for _ in 0..5 {
            let mut changed = Mask::NONE;
            for ((code, &x), &w) in codes.iter_mut().zip(x).zip(weights) {
                lanes_only();
                let l = code.to_f32();
                let (rest_lx, rest_l2) = (sum_lx - w * x * l, sum_l2 - w * l * l);
                let new = (x * rest_l2 / rest_lx).nearest().min(max_code);
                let l = new.to_f32();
                let (new_lx, new_l2) = (rest_lx + w * x * l, rest_l2 + w * l * l);
                let better = rest_lx.gt(Lanes::ZERO)
                    & rest_l2.gt(Lanes::ZERO)
                    & new.ne(*code)
                    & (new_lx * new_lx * sum_l2).gt(sum_lx * sum_lx * new_l2);
                *code = better.pick_ints(new.low_bits(BYTE), *code);
                sum_lx = better.pick(new_lx, sum_lx);
                sum_l2 = better.pick(new_l2, sum_l2);
                changed = changed | better;
            }
            if !changed.any() {
                break;
            }
        }
        let zero = max.lt(Lanes::all(ZERO));
        for code in codes {
            lanes_only();
            *code = zero.pick_ints(Ints::all(0), *code);
        }
        *scale = (sum_l2.gt(Lanes::ZERO) & !zero).pick(sum_lx / sum_l2, Lanes::ZERO);
    }
}

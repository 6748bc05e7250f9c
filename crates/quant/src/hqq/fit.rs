//! HQQ's optimizer: with the scale fixed by the range of a group, each step moves its zero to the mean of
//! `code - (value - shrunk error) * scale`, the shrinkage being the proximal operator of the p-norm, p = 0.7.

use crate::simd::per_level;

/// Most steps that HQQ takes.
pub(super) const STEPS: usize = 20;
/// Groups whose zeros are found together.
pub(super) const LANES: usize = 16;
/// Errors up to about 0.1701 shrink to zero.
const CERTAIN: f32 = 0.17;

/// Groups of up to 16 lanes, as HQQ has them: `code = value * scale + zero`.
struct Groups<'a, const GROUP: usize> {
    values: &'a [[f32; GROUP]],
    levels: f32,
    scale: [f32; LANES],
    zero: [f32; LANES],
}

per_level! {
    /// Codes of whole groups, at most [`LANES`] of them, after so many steps.
    pub(super) fn encode(
        bits: u8,
        group: usize,
        steps: usize,
        values: &[f32],
        codes: &mut [u8],
        scale: &mut [f32; LANES],
        zero: &mut [f32; LANES],
    ) {
        match group {
            16 => encode_groups::<16>(bits, steps, values, codes, scale, zero),
            32 => encode_groups::<32>(bits, steps, values, codes, scale, zero),
            64 => encode_groups::<64>(bits, steps, values, codes, scale, zero),
            _ => encode_groups::<128>(bits, steps, values, codes, scale, zero),
        }
    }
}

per_level! {
    /// Adds the sum of absolute errors before each step.
    pub(super) fn errors(bits: u8, group: usize, values: &[f32], errors: &mut [f64; STEPS]) {
        match group {
            16 => add_errors::<16>(bits, values, errors),
            32 => add_errors::<32>(bits, values, errors),
            64 => add_errors::<64>(bits, values, errors),
            _ => add_errors::<128>(bits, values, errors),
        }
    }
}

/// Steps until the error does not fall any more, that one included.
pub(super) fn steps(errors: &[f64; STEPS]) -> u8 {
    let falls = errors.windows(2).take_while(|e| e[1] < e[0]).count();
    (falls + 2).min(STEPS) as u8
}

#[inline(always)]
fn encode_groups<const GROUP: usize>(
    bits: u8,
    steps: usize,
    values: &[f32],
    codes: &mut [u8],
    scale: &mut [f32; LANES],
    zero: &mut [f32; LANES],
) {
    let mut groups = Groups::<GROUP>::new(bits, values.as_chunks().0);
    for _ in 0..steps {
        groups.step::<false>();
    }
    for (i, (values, codes)) in groups.values.iter().zip(codes.as_chunks_mut::<GROUP>().0).enumerate().take(LANES) {
        for (code, v) in codes.iter_mut().zip(values) {
            // The sum with 2^23 rounds and leaves the integer in the low bits.
            *code = (within(v * groups.scale[i] + groups.zero[i], groups.levels) + 8_388_608.0).to_bits() as u8;
        }
    }
    (*scale, *zero) = (groups.scale, groups.zero);
}

#[inline(always)]
fn add_errors<const GROUP: usize>(bits: u8, values: &[f32], errors: &mut [f64; STEPS]) {
    for values in values.chunks(GROUP * LANES) {
        let mut groups = Groups::<GROUP>::new(bits, values.as_chunks().0);
        for error in errors.iter_mut() {
            *error += groups.step::<true>();
        }
    }
}

impl<'a, const GROUP: usize> Groups<'a, GROUP> {
    /// Scale and zero of the range of each group. A narrow range has the scale 1.
    #[inline(always)]
    fn new(bits: u8, values: &'a [[f32; GROUP]]) -> Self {
        let levels = ((1u32 << bits) - 1) as f32;
        let (mut scale, mut zero) = ([1.0; LANES], [0.0; LANES]);
        for (i, values) in values.iter().enumerate().take(LANES) {
            let (low, high) = bounds(values);
            let width = high - low;
            // Not their quotient: torch divides a number by a tensor in two steps.
            let fitting = 1.0 / width * levels;
            scale[i] = if width.abs() <= 1e-4 { 1.0 } else { fitting };
            scale[i] = if scale[i] > 2e4 { 2e4 } else { scale[i] };
            zero[i] = -low * scale[i];
        }
        Self { values, levels, scale, zero }
    }

    /// Moves the zero of each group. Returns the sum of absolute errors before that, if it is asked for.
    #[inline(always)]
    fn step<const MEASURE: bool>(&mut self) -> f64 {
        let mut partial = [[0.0; 8]; LANES];
        let mut errors = [0.0; 16];
        for (i, values) in self.values.iter().enumerate().take(LANES) {
            let (scale, zero) = (self.scale[i], self.zero[i]);
            let mut terms = [0.0; GROUP];
            let mut distance = [0.0f32; 16];
            for (terms, v) in terms.as_chunks_mut::<16>().0.iter_mut().zip(values.as_chunks::<16>().0) {
                let mut away = [0.0; 16];
                for j in 0..16 {
                    let product = v[j] * scale;
                    let place = product + zero;
                    let code = rounded(within(place, self.levels));
                    away[j] = if MEASURE { v[j] - (code - zero) / scale } else { place - code };
                    terms[j] = code - product;
                }
                for j in 0..16 {
                    distance[j] = if away[j].abs() > distance[j] { away[j].abs() } else { distance[j] };
                }
                if MEASURE {
                    for j in 0..16 {
                        errors[j] += f64::from(away[j].abs());
                    }
                }
            }
            // Distances of codes are errors times the scale, but for what rounding makes of them.
            let limit = if MEASURE { CERTAIN } else { CERTAIN * scale - 1e-5 * (zero.abs() + self.levels) };
            if highest(distance) >= limit {
                shrinking_terms(values, scale, zero, self.levels, &mut terms);
            }
            partial[i] = eighths(&terms);
        }
        let mut total = [0.0; LANES];
        for j in 0..8 {
            for (total, partial) in total.iter_mut().zip(&partial) {
                *total += partial[j];
            }
        }
        for (zero, total) in self.zero.iter_mut().zip(total) {
            *zero = total / GROUP as f32;
        }
        errors.iter().sum()
    }
}

/// The terms of a group where some error is large enough to leave something after shrinking.
#[inline(always)]
fn shrinking_terms<const GROUP: usize>(
    values: &[f32; GROUP],
    scale: f32,
    zero: f32,
    levels: f32,
    terms: &mut [f32; GROUP],
) {
    for (terms, v) in terms.as_chunks_mut::<16>().0.iter_mut().zip(values.as_chunks::<16>().0) {
        let (mut errors, mut codes, mut sizes) = ([0.0; 16], [0.0; 16], [CERTAIN; 16]);
        for j in 0..16 {
            (errors[j], codes[j]) = error(v[j], scale, zero, levels);
            // Smaller errors shrink to zero, and their powers may be infinite.
            sizes[j] = if errors[j].abs() > CERTAIN { errors[j].abs() } else { CERTAIN };
        }
        if highest(sizes) <= CERTAIN {
            continue;
        }
        let mut powers = [0.0; 16];
        for j in 0..16 {
            powers[j] = power(sizes[j]);
        }
        for j in 0..16 {
            let left = sizes[j] - 0.1 * powers[j];
            let left = if left > 0.0 { left } else { 0.0 };
            let shrunk = if errors[j] < 0.0 { -left } else { left };
            terms[j] = codes[j] - (v[j] - shrunk) * scale;
        }
    }
}

/// The largest of some numbers that are not negative.
#[inline(always)]
fn highest(mut values: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            values[j] = if values[j + half] > values[j] { values[j + half] } else { values[j] };
        }
    }
    values[0]
}

/// Error of a value, and its code.
#[inline(always)]
fn error(value: f32, scale: f32, zero: f32, levels: f32) -> (f32, f32) {
    let code = rounded(within(value * scale + zero, levels));
    (value - (code - zero) / scale, code)
}

/// Clamped before rounding, which gives the same code as after.
#[inline(always)]
fn within(value: f32, levels: f32) -> f32 {
    let value = if value > 0.0 { value } else { 0.0 };
    if value < levels { value } else { levels }
}

/// The nearest integer, ties to even, of a small number that is not negative.
#[inline(always)]
fn rounded(value: f32) -> f32 {
    (value + 8_388_608.0) - 8_388_608.0
}

/// Sums of every eighth term, in the order in which torch adds up a short row on x86: four vectors of eight side by side
/// where there are as many, then those four.
#[inline(always)]
fn eighths<const GROUP: usize>(terms: &[f32; GROUP]) -> [f32; 8] {
    let side = if GROUP < 32 { 1 } else { 4 };
    let mut sums = [[0.0; 8]; 4];
    for (i, eight) in terms.as_chunks::<8>().0.iter().enumerate() {
        for j in 0..8 {
            sums[i % side][j] += eight[j];
        }
    }
    let mut total = sums[0];
    for sum in &sums[1..] {
        for j in 0..8 {
            total[j] += sum[j];
        }
    }
    total
}

/// Smallest and largest value; not-a-number is passed over.
#[inline(always)]
fn bounds<const GROUP: usize>(values: &[f32; GROUP]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for v in values.as_chunks::<16>().0 {
        for j in 0..16 {
            low[j] = if v[j] < low[j] { v[j] } else { low[j] };
            high[j] = if v[j] > high[j] { v[j] } else { high[j] };
        }
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            low[j] = if low[j + half] < low[j] { low[j + half] } else { low[j] };
            high[j] = if high[j + half] > high[j] { high[j + half] } else { high[j] };
        }
    }
    (low[0], high[0])
}

/// `value` to the power of -0.3 (the `f32` next to it), to 1e-10 before the last rounding; for positive normal numbers.
/// Integers go to floats and back by adding a large one, which every instruction set can do to vectors.
#[inline(always)]
fn power(value: f32) -> f32 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    const BIAS: u64 = 1023 << 52;
    let bits = f64::from(value).to_bits();
    // Mantissas of [sqrt(1/2), sqrt(2)): the logarithm is an odd series of (m - 1) / (m + 1).
    let biased = bits.wrapping_sub(ROOT_HALF).wrapping_add(BIAS) >> 52;
    let mantissa = f64::from_bits(bits.wrapping_sub(biased << 52).wrapping_add(BIAS));
    let exponent = f64::from_bits(SHIFT.to_bits() + biased) - (SHIFT + 1023.0);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 1.0 / 11.0;
    series = series * square + 1.0 / 9.0;
    series = series * square + 1.0 / 7.0;
    series = series * square + 1.0 / 5.0;
    series = series * square + 1.0 / 3.0;
    series = series * square + 1.0;
    let y = f64::from(-0.3f32) * (exponent + 2.0 * std::f64::consts::LOG2_E * s * series);
    let shifted = y + SHIFT;
    let rest = (y - (shifted - SHIFT)) * std::f64::consts::LN_2;
    let mut series = 1.0 / 362_880.0;
    series = series * rest + 1.0 / 40_320.0;
    series = series * rest + 1.0 / 5_040.0;
    series = series * rest + 1.0 / 720.0;
    series = series * rest + 1.0 / 120.0;
    series = series * rest + 1.0 / 24.0;
    series = series * rest + 1.0 / 6.0;
    series = series * rest + 0.5;
    series = series * rest + 1.0;
    series = series * rest + 1.0;
    let scale = f64::from_bits(shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(1023) << 52);
    (series * scale) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_rounded_to_the_nearest_all_but_always() {
        let mut differ = 0;
        for i in 0..1_000_000u32 {
            let x = f32::from_bits(CERTAIN.to_bits() + i * 401);
            let expected = f64::from(x).powf(f64::from(-0.3f32)) as f32;
            differ += u32::from(power(x) != expected);
            assert!(power(x).to_bits().abs_diff(expected.to_bits()) <= 1, "{x:e}");
        }
        assert!(differ <= 5000, "{differ}");
    }

    #[test]
    fn what_is_certain_to_vanish_vanishes() {
        assert!(CERTAIN < 0.1 * power(CERTAIN) && 0.17 < 0.1 * power(0.17) && 0.171 > 0.1 * power(0.171));
    }

    #[test]
    fn steps_end_with_the_first_that_does_not_help() {
        let mut errors = [0.0; STEPS];
        for (i, e) in errors.iter_mut().enumerate() {
            *e = 100.0 - i as f64;
        }
        assert_eq!(steps(&errors), 20);
        errors[4] = errors[3];
        assert_eq!(steps(&errors), 5);
        errors[1] = 200.0;
        assert_eq!(steps(&errors), 2);
    }
}

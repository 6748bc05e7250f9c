//! HQQ's optimizer: with the scale fixed by the range of a group, each step moves its zero to the mean of
//! `code - (value - shrunk error) * scale`, the shrinkage being the proximal operator of the p-norm, p = 0.7.

use super::power::{CERTAIN, TABLES, Tables, powers};
use crate::affine::bounds;
use crate::simd::{Level, level, per_level};

/// Most steps that HQQ takes.
pub(super) const STEPS: usize = 20;
/// Groups whose zeros are found together.
pub(super) const LANES: usize = 16;

/// Groups of up to 16 lanes, as HQQ has them: `code = value * scale + zero`.
struct Groups<'a, const GROUP: usize> {
    values: &'a [[f32; GROUP]],
    levels: f32,
    scale: [f32; LANES],
    zero: [f32; LANES],
    /// Whether an error was found that leaves something after shrinking.
    wide: [bool; LANES],
    /// Whether a step did not move the zero, so that no later one will.
    still: [bool; LANES],
    /// Absolute errors as they were measured last.
    errors: [[f64; 8]; LANES],
    level: Level,
    tables: &'a Tables,
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
        let no = [false; LANES];
        let errors = [[0.0; 8]; LANES];
        Self { values, levels, scale, zero, wide: no, still: no, errors, level: level(), tables: &TABLES }
    }

    /// Moves the zero of each group. Returns the sum of absolute errors before that, if it is asked for.
    #[inline(always)]
    fn step<const MEASURE: bool>(&mut self) -> f64 {
        let mut partial = [[0.0; 8]; LANES];
        let mut errors = [0.0; 8];
        for (i, values) in self.values.iter().enumerate().take(LANES) {
            if !self.still[i] {
                let mut own = [0.0; 8];
                partial[i] = self.group::<MEASURE>(i, values, &mut own);
                self.errors[i] = own;
            }
            if MEASURE {
                for (sum, own) in errors.iter_mut().zip(self.errors[i]) {
                    *sum += own;
                }
            }
        }
        let mut total = [0.0; LANES];
        for j in 0..8 {
            for (total, partial) in total.iter_mut().zip(&partial) {
                *total += partial[j];
            }
        }
        for (i, total) in total.iter().enumerate() {
            let moved = total / GROUP as f32;
            if !self.still[i] {
                self.still[i] = moved.to_bits() == self.zero[i].to_bits();
                self.zero[i] = moved;
            }
        }
        errors.iter().sum()
    }

    /// Sums of every eighth term of a group, and its errors.
    #[inline(always)]
    fn group<const MEASURE: bool>(&mut self, i: usize, values: &[f32; GROUP], errors: &mut [f64; 8]) -> [f32; 8] {
        let (scale, zero) = (self.scale[i], self.zero[i]);
        let mut terms = [0.0; GROUP];
        if !self.wide[i] {
            let farthest = plain_terms::<GROUP, MEASURE>(values, scale, zero, self.levels, &mut terms, errors);
            // Distances of codes are errors times the scale, but for what rounding makes of them.
            let limit = if MEASURE { CERTAIN } else { CERTAIN * scale - 1e-5 * (zero.abs() + self.levels) };
            self.wide[i] = farthest >= limit;
            if !self.wide[i] {
                return eighths(&terms);
            }
            *errors = [0.0; 8];
        }
        let tables = (self.level, self.tables);
        shrinking_terms::<GROUP, MEASURE>(tables, values, scale, zero, self.levels, &mut terms, errors);
        eighths(&terms)
    }
}

/// The terms of a group where all errors shrink to zero. Returns the largest error, if they are measured; else the largest
/// distance of a code.
#[inline(always)]
fn plain_terms<const GROUP: usize, const MEASURE: bool>(
    values: &[f32; GROUP],
    scale: f32,
    zero: f32,
    levels: f32,
    terms: &mut [f32; GROUP],
    errors: &mut [f64; 8],
) -> f32 {
    let mut distance = [0.0f32; 16];
    for (terms, v) in terms.as_chunks_mut::<16>().0.iter_mut().zip(values.as_chunks::<16>().0) {
        let mut away = [0.0; 16];
        for j in 0..16 {
            let product = v[j] * scale;
            let place = product + zero;
            let code = rounded(within(place, levels));
            away[j] = if MEASURE { v[j] - (code - zero) / scale } else { place - code };
            terms[j] = code - product;
        }
        for j in 0..16 {
            distance[j] = if away[j].abs() > distance[j] { away[j].abs() } else { distance[j] };
        }
        if MEASURE {
            add_sizes(&away, errors);
        }
    }
    highest(distance)
}

/// The terms of a group where some error is large enough to leave something after shrinking.
#[inline(always)]
fn shrinking_terms<const GROUP: usize, const MEASURE: bool>(
    (level, tables): (Level, &Tables),
    values: &[f32; GROUP],
    scale: f32,
    zero: f32,
    levels: f32,
    terms: &mut [f32; GROUP],
    errors: &mut [f64; 8],
) {
    for (terms, v) in terms.as_chunks_mut::<16>().0.iter_mut().zip(values.as_chunks::<16>().0) {
        let (mut away, mut codes, mut sizes) = ([0.0; 16], [0.0; 16], [CERTAIN; 16]);
        for j in 0..16 {
            codes[j] = rounded(within(v[j] * scale + zero, levels));
            away[j] = v[j] - (codes[j] - zero) / scale;
            // Smaller errors shrink to zero, and their powers may be infinite.
            sizes[j] = if away[j].abs() > CERTAIN { away[j].abs() } else { CERTAIN };
        }
        if MEASURE {
            add_sizes(&away, errors);
        }
        let powers = powers(level, tables, &sizes);
        for j in 0..16 {
            let left = sizes[j] - 0.1 * powers[j];
            let left = if left > 0.0 { left } else { 0.0 };
            let shrunk = if away[j] < 0.0 { -left } else { left };
            terms[j] = codes[j] - (v[j] - shrunk) * scale;
        }
    }
}

/// Adds absolute values, as many at a time as one vector holds.
#[inline(always)]
fn add_sizes(values: &[f32; 16], sums: &mut [f64; 8]) {
    for values in values.as_chunks::<8>().0 {
        for j in 0..8 {
            sums[j] += f64::from(values[j].abs());
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

#[cfg(test)]
mod tests {
    use super::*;

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

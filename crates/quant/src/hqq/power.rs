//! Powers for the shrinkage operator.

use std::sync::LazyLock;

use crate::simd::Level;
use crate::simd::codes::look_up;

/// The exponent of the shrinkage, as torch has it.
const EXPONENT: f64 = -0.3f32 as f64;
/// Errors from which a tenth of their power of -0.3 is less than half a unit in their last place.
const LARGE: f32 = 131_072.0;
/// Errors up to about 0.1701 shrink to zero.
pub(super) const CERTAIN: f32 = 0.17;

/// Factors of a power of -0.3 in two parts: the first of few enough bits that a product of two is exact.
struct Factors {
    first: [f32; 32],
    second: [f32; 32],
}

/// What [`powers`] looks up, by the first five bits of a mantissa and by the low five of an exponent.
pub(super) struct Tables {
    /// Of one over the middle of each part of a binade.
    inverse: [f32; 32],
    mantissa: Factors,
    exponent: Factors,
}

pub(super) static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let middle = |part: usize| 1.0 + (part as f64 + 0.5) / 32.0;
    // The exponents that occur are -3 to 17; 127 stands for none.
    let binade = |low: usize| f64::from((low as i32 + 1 + 8) % 32 - 8).exp2();
    Tables {
        inverse: std::array::from_fn(|part| (1.0 / middle(part)) as f32),
        mantissa: Factors::new(middle),
        exponent: Factors::new(binade),
    }
});

impl Factors {
    fn new(base: impl Fn(usize) -> f64) -> Self {
        let exact = |i: usize| base(i).powf(EXPONENT);
        let first = |i: usize| f32::from_bits((exact(i) as f32).to_bits() & !0xfff);
        Self {
            first: std::array::from_fn(first),
            second: std::array::from_fn(|i| (exact(i) - f64::from(first(i))) as f32),
        }
    }
}

/// Values to the power of -0.3 (the `f32` next to it), to 1e-9 before the last rounding, from [`CERTAIN`] up. Beyond
/// [`LARGE`] the power does not matter, and that of `LARGE` is returned.
///
/// A value is 2^e (1 + d) c, c being the middle of one of 32 parts of a binade: the power of 2^e and that of c come from
/// tables, and that of 1 + d is a short series.
#[inline(always)]
pub(super) fn powers(level: Level, tables: &Tables, values: &[f32; 16]) -> [f32; 16] {
    const A: f32 = EXPONENT as f32;
    const B: f32 = (EXPONENT * (EXPONENT - 1.0) / 2.0) as f32;
    const C: f32 = (EXPONENT * (EXPONENT - 1.0) * (EXPONENT - 2.0) / 6.0) as f32;
    const D: f32 = (EXPONENT * (EXPONENT - 1.0) * (EXPONENT - 2.0) * (EXPONENT - 3.0) / 24.0) as f32;
    let (mut part, mut binade, mut away) = ([0; 16], [0; 16], [0.0; 16]);
    for j in 0..16 {
        let bits = if values[j] < LARGE { values[j] } else { LARGE }.to_bits();
        (part[j], binade[j]) = (bits >> 18 & 31, bits >> 23 & 31);
        let mantissa = bits & 0x7f_ffff | 0x3f80_0000;
        away[j] = f32::from_bits(mantissa) - f32::from_bits(mantissa & !0x3_ffff | 0x2_0000);
    }
    let inverse = look_up(level, &tables.inverse, &part);
    let (c, c_rest) = (look_up(level, &tables.mantissa.first, &part), look_up(level, &tables.mantissa.second, &part));
    let (e, e_rest) =
        (look_up(level, &tables.exponent.first, &binade), look_up(level, &tables.exponent.second, &binade));
    let mut powers = [0.0; 16];
    for j in 0..16 {
        let d = away[j] * inverse[j];
        let series = d * (A + d * (B + d * (C + d * D)));
        let exact = c[j] * e[j];
        let rest = c[j] * e_rest[j] + c_rest[j] * (e[j] + e_rest[j]);
        powers[j] = exact + (rest + (exact + rest) * series);
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{level, with_level};

    fn power(value: f32) -> f32 {
        powers(level(), &TABLES, &[value; 16])[7]
    }

    #[test]
    fn powers_are_rounded_to_the_nearest_all_but_always() {
        let (mut differ, mut count) = (0, 0);
        for bits in (CERTAIN.to_bits()..LARGE.to_bits()).step_by(163) {
            let x = f32::from_bits(bits);
            let expected = f64::from(x).powf(f64::from(-0.3f32)) as f32;
            differ += u32::from(power(x) != expected);
            count += 1;
            assert!(power(x).to_bits().abs_diff(expected.to_bits()) <= 1, "{x:e}");
        }
        assert!(count > 900_000 && differ <= count / 200, "{differ} of {count}");
    }

    #[test]
    fn powers_of_large_errors_do_not_matter() {
        for x in [LARGE, 1e9, f32::MAX] {
            let exact = f64::from(x).powf(f64::from(-0.3f32)) as f32;
            assert_eq!((x - 0.1 * power(x), x - 0.1 * exact), (x, x));
        }
    }

    #[test]
    fn what_is_certain_to_vanish_vanishes() {
        assert!(CERTAIN < 0.1 * power(CERTAIN) && 0.17 < 0.1 * power(0.17) && 0.171 > 0.1 * power(0.171));
    }

    #[test]
    fn every_level_gives_the_same_powers() {
        let values: [f32; 16] = std::array::from_fn(|i| 0.171 * 2.3f32.powi(i as i32));
        let run = |wanted| with_level(wanted, || powers(level(), &TABLES, &values));
        assert_eq!(run(Level::Avx512), run(Level::Portable));
        assert_eq!(run(Level::Avx2), run(Level::Portable));
    }
}

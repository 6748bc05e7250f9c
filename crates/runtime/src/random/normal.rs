//! Normal values by Box and Muller's transformation, the same bits on every processor.
//!
//! Single precision is computed in double precision by short series out of additions, multiplications, one division and
//! one root, all of which IEEE 754 defines to the last bit; the rounding to single precision then hides their error.

use std::f64::consts::{LN_2, SQRT_2, TAU};

use super::{Block, LANES, Words};

/// Four normal values of each block.
#[inline(always)]
pub(super) fn four(words: &Words) -> [[f32; 4]; LANES] {
    let mut values = [[0.0; LANES]; 4];
    for lane in 0..LANES {
        let (x, y) = pair(words[0][lane] >> 8, words[1][lane] >> 8);
        (values[0][lane], values[1][lane]) = (x, y);
    }
    for lane in 0..LANES {
        let (x, y) = pair(words[2][lane] >> 8, words[3][lane] >> 8);
        (values[2][lane], values[3][lane]) = (x, y);
    }
    std::array::from_fn(|lane| std::array::from_fn(|i| values[i][lane]))
}

/// Two normal values of double precision, by the system's mathematics library.
pub(super) fn two([a, b, c, d]: Block) -> [f64; 2] {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - super::unit_f64(a, b)).ln()).sqrt();
    let (sine, cosine) = (super::unit_f64(c, d) * TAU).sin_cos();
    [radius * cosine, radius * sine]
}

/// Two normal values of two numbers of 24 bits: the first gives the radius, the second the angle.
#[inline(always)]
fn pair(radius: u32, angle: u32) -> (f32, f32) {
    let radius = (-2.0 * logarithm(f64::from(radius + 1) * (1.0 / (1 << 24) as f64))).sqrt();
    let (sine, cosine) = turn(angle);
    ((radius * cosine) as f32, (radius * sine) as f32)
}

/// ln(x) for a normal x > 0, within 2^-38 of its size: ln(m) = 2 artanh((m - 1) / (m + 1)) with m next to 1.
#[inline(always)]
fn logarithm(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    let mantissa = f64::from_bits(bits & MANTISSA | 1023 << 52);
    let large = mantissa > SQRT_2;
    let m = if large { mantissa * 0.5 } else { mantissa };
    let exponent = (bits >> 52) as i32 - 1023 + i32::from(large);
    let t = (m - 1.0) / (m + 1.0);
    let s = t * t;
    let series = (1..=6).rev().fold(1.0 / 15.0, |sum, n| sum * s + 1.0 / f64::from(2 * n + 1));
    f64::from(exponent) * LN_2 + 2.0 * t * (1.0 + s * series)
}

/// Sine and cosine of `angle / 2^24` of a full turn, within 2^-37: an eighth of a turn by Taylor's series, the rest by
/// symmetry.
#[inline(always)]
fn turn(angle: u32) -> (f64, f64) {
    let quarter = (angle + (1 << 21)) >> 22;
    let rest = angle as i32 - (quarter << 22) as i32;
    let x = f64::from(rest) * (TAU / (1 << 24) as f64);
    let s = x * x;
    let series = |from: i32| {
        // Terms of the alternating series, last first: ratios of neighbours are -s / (k (k + 1)).
        (0..6).rev().fold(1.0, |sum, n| {
            let k = from + 2 * n;
            1.0 - s * (1.0 / f64::from(k * (k + 1))) * sum
        })
    };
    let (sine, cosine) = (x * series(2), series(1));
    let odd = quarter & 1 != 0;
    let (vertical, horizontal) = if odd { (cosine, sine) } else { (sine, cosine) };
    // Minus in the lower half of the circle, and in the left one.
    (signed(vertical, quarter >> 1), signed(horizontal, (quarter >> 1) ^ quarter))
}

/// `x`, or `-x` if `minus` is odd.
#[inline(always)]
fn signed(x: f64, minus: u32) -> f64 {
    f64::from_bits(x.to_bits() ^ u64::from(minus & 1) << 63)
}

#[cfg(test)]
mod tests {
    use super::super::Philox;
    use super::*;

    #[test]
    fn the_series_agree_with_the_mathematics_library() {
        let mut random = Philox::new(1);
        for step in 0..200_000u32 {
            let word = if step < 1000 { step } else { random.block()[0] >> 8 };
            for word in [word, (1 << 24) - 1 - word] {
                let x = f64::from(word + 1) / f64::from(1 << 24);
                assert!((logarithm(x) - x.ln()).abs() <= x.ln().abs() * 2f64.powi(-38), "ln {x}");
                let (sine, cosine) = turn(word);
                let (s, c) = (f64::from(word) / f64::from(1 << 24) * TAU).sin_cos();
                assert!((sine - s).abs() < 2f64.powi(-37) && (cosine - c).abs() < 2f64.powi(-37), "turn {word}");
            }
        }
        assert_eq!(turn(1 << 22), (1.0, 0.0));
    }

    #[test]
    fn moments_and_tails_are_those_of_the_normal_distribution() {
        let (mut single, mut double) = (vec![0f32; 1 << 20], vec![0f64; 1 << 20]);
        Philox::new(21).fill_normal(&mut single);
        Philox::new(22).fill_normal_f64(&mut double);
        let single: Vec<f64> = single.into_iter().map(f64::from).collect();
        for values in [single, double] {
            let n = values.len() as f64;
            let moment = |k: i32| values.iter().map(|x| x.powi(k)).sum::<f64>() / n;
            // Five standard errors of each.
            assert!(moment(1).abs() < 0.005, "{}", moment(1));
            assert!((moment(2) - 1.0).abs() < 0.007, "{}", moment(2));
            assert!(moment(3).abs() < 0.019, "{}", moment(3));
            assert!((moment(4) - 3.0).abs() < 0.048, "{}", moment(4));
            let beyond = values.iter().filter(|x| x.abs() > 3.0).count() as f64 / n;
            assert!((beyond - 0.0027).abs() < 0.00026, "{beyond}");
            let neighbours = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n;
            assert!(neighbours.abs() < 0.005, "{neighbours}");
            assert!(values.iter().all(|x| x.is_finite()));
        }
    }

    /// The ends of the range of words, and bits that must not change: checkpoints resume on other machines.
    #[test]
    fn the_ends_are_finite_and_the_bits_are_fixed() {
        assert_eq!(pair((1 << 24) - 1, 0), (0.0, 0.0));
        assert!((pair(0, 0).0 - 5.768_108).abs() < 1e-6);
        let [expected, ..] = four(&[0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8].map(|word| [word; LANES]));
        let direct = |a: u32, b: u32| {
            let radius = (-2.0 * (f64::from((a >> 8) + 1) / f64::from(1 << 24)).ln()).sqrt();
            let angle = f64::from(b >> 8) / f64::from(1 << 24) * TAU;
            [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
        };
        assert_eq!(expected[..2], direct(0x6627_e8d5, 0xe169_c58d));
        assert_eq!(expected[2..], direct(0xbc57_ac4c, 0x9b00_dbd8));
    }
}

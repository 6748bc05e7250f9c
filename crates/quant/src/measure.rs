//! What a block of values lost.

use crate::simd::per_level;

const LANES: usize = 16;

/// Sums of squares of `values - decoded` and of `values`. The order of additions is fixed, so the result is too.
pub fn squared_error(values: &[f32], decoded: &[f32]) -> (f64, f64) {
    let mut sums = [0.0; 2];
    // Short runs are added up in `f32`, runs of them in `f64`: exact enough, and vectors stay full.
    for (v, d) in values.chunks(1024).zip(decoded.chunks(1024)) {
        let mut lanes = [[0.0; LANES]; 2];
        lane_sums(v, d, &mut lanes);
        for (sum, lanes) in sums.iter_mut().zip(&lanes) {
            *sum += lanes.iter().map(|v| f64::from(*v)).sum::<f64>();
        }
    }
    (sums[0], sums[1])
}

/// The largest magnitude among `values`; infinite if any is not a number.
pub fn largest_magnitude(values: &[f32]) -> f32 {
    let mut bits = [0; LANES];
    lane_magnitudes(values, &mut bits);
    let largest = bits.iter().copied().max().unwrap_or(0);
    if largest >= 0x7f80_0000 { f32::INFINITY } else { f32::from_bits(largest) }
}

per_level! {
    fn lane_sums(values: &[f32], decoded: &[f32], sums: &mut [[f32; LANES]; 2]) {
        let (v, v_rest) = values.as_chunks::<LANES>();
        let (d, d_rest) = decoded.as_chunks::<LANES>();
        for (v, d) in v.iter().zip(d) {
            for i in 0..LANES {
                let error = v[i] - d[i];
                sums[0][i] += error * error;
                sums[1][i] += v[i] * v[i];
            }
        }
        for (v, d) in v_rest.iter().zip(d_rest) {
            sums[0][0] += (v - d) * (v - d);
            sums[1][0] += v * v;
        }
    }
}

per_level! {
    fn lane_magnitudes(values: &[f32], bits: &mut [u32; LANES]) {
        let (v, rest) = values.as_chunks::<LANES>();
        for v in v {
            for i in 0..LANES {
                bits[i] = bits[i].max(v[i].to_bits() & 0x7fff_ffff);
            }
        }
        for v in rest {
            bits[0] = bits[0].max(v.to_bits() & 0x7fff_ffff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Level, with_level};

    #[test]
    fn errors_add_up_and_do_not_depend_on_the_instruction_set() {
        let values: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.37).sin()).collect();
        let decoded: Vec<f32> = values.iter().map(|v| (v * 16.0).round() / 16.0).collect();
        let expected: f64 = values.iter().zip(&decoded).map(|(v, d)| f64::from(v - d).powi(2)).sum();
        let (error, norm) = squared_error(&values, &decoded);
        assert!((error / expected - 1.0).abs() < 1e-5 && norm > 2400.0 && norm < 2600.0, "{error} {expected} {norm}");
        let portable = with_level(Level::Portable, || squared_error(&values, &decoded));
        assert_eq!((error, norm), portable);
    }

    #[test]
    fn what_is_not_finite_is_infinitely_large() {
        let mut values = vec![1.0f32; 33];
        values[20] = -3.0;
        assert_eq!(largest_magnitude(&values), 3.0);
        values[32] = f32::NAN;
        assert_eq!(largest_magnitude(&values), f32::INFINITY);
        values[32] = f32::NEG_INFINITY;
        assert_eq!(largest_magnitude(&values), f32::INFINITY);
        assert_eq!(largest_magnitude(&[]), 0.0);
    }
}

//! `qint4` and `qint2`: `value = code * scale - shift`, from the range of each group.

use crate::affine::{Affine, bounds};
use crate::mlx::Float;
use crate::mlx::bits::pack32;
use crate::simd::per_level;

/// The plain names have the groups that Quanto takes where they divide a row; it goes down to 96, 64 and 32 where not.
pub(super) static SCHEMES: [Affine; 8] = [
    Affine::quanto::<4, 128>("qint4", 0.102, encode),
    Affine::quanto::<4, 96>("qint4-g96", 0.098, encode),
    Affine::quanto::<4, 64>("qint4-g64", 0.092, encode),
    Affine::quanto::<4, 32>("qint4-g32", 0.081, encode),
    Affine::quanto::<2, 128>("qint2", 0.505, encode),
    Affine::quanto::<2, 96>("qint2-g96", 0.485, encode),
    Affine::quanto::<2, 64>("qint2-g64", 0.455, encode),
    Affine::quanto::<2, 32>("qint2-g32", 0.4, encode),
];

per_level! {
    /// Quanto computes in the type of the weights: every result is rounded to `float`.
    fn encode(
        bits: u8,
        group: usize,
        float: Float,
        values: &[f32],
        packed: &mut [u8],
        scales: &mut [u8],
        zeros: &mut [u8],
    ) {
        match bits {
            2 => encode_groups::<2>(group, float, values, packed, scales, zeros),
            _ => encode_groups::<4>(group, float, values, packed, scales, zeros),
        }
    }
}

#[inline(always)]
fn encode_groups<const BITS: u32>(
    group: usize,
    float: Float,
    values: &[f32],
    packed: &mut [u8],
    scales: &mut [u8],
    zeros: &mut [u8],
) {
    let levels = ((1u32 << BITS) - 1) as f32;
    let groups = values.chunks_exact(group).zip(packed.chunks_exact_mut(group / 8 * BITS as usize));
    for (i, (values, packed)) in groups.enumerate() {
        let (low, high) = bounds(values);
        let (scale, shift) = (float.round(float.round(high - low) / levels), -low);
        float.write(scale, scales, i);
        float.write(shift, zeros, i);
        for (v, out) in values.as_chunks::<32>().0.iter().zip(packed.chunks_exact_mut(4 * BITS as usize)) {
            let mut quotients = *v;
            for q in &mut quotients {
                *q += shift;
            }
            float.round_all(&mut quotients);
            for q in &mut quotients {
                *q /= scale;
            }
            float.round_all(&mut quotients);
            let mut codes = [0; 32];
            for (code, q) in codes.iter_mut().zip(quotients) {
                // Nothing over nothing gives zero. Clamping before rounding gives the same code as after, and the sum with
                // 2^23 rounds.
                let q = if q > 0.0 { q } else { 0.0 };
                let q = if q < levels { q } else { levels };
                *code = (q + 8_388_608.0).to_bits() as u8;
            }
            pack32::<BITS>(&codes, out);
        }
    }
}

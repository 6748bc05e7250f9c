//! `mlx{2,3,4,5,6,8}-g{32,64,128}`: `value = code * scale + bias` for each group.

use super::bits::pack32;
use super::{Float, LANES};
use crate::affine::{Affine, bounds};
use crate::simd::per_level;

pub(super) static SCHEMES: [Affine; 18] = [
    Affine::mlx::<2, 32>("mlx2-g32", 0.38, encode),
    Affine::mlx::<2, 64>("mlx2-g64", 0.41, encode),
    Affine::mlx::<2, 128>("mlx2-g128", 0.44, encode),
    Affine::mlx::<3, 32>("mlx3-g32", 0.18, encode),
    Affine::mlx::<3, 64>("mlx3-g64", 0.2, encode),
    Affine::mlx::<3, 128>("mlx3-g128", 0.22, encode),
    Affine::mlx::<4, 32>("mlx4-g32", 0.084, encode),
    Affine::mlx::<4, 64>("mlx4-g64", 0.094, encode),
    Affine::mlx::<4, 128>("mlx4-g128", 0.11, encode),
    Affine::mlx::<5, 32>("mlx5-g32", 0.042, encode),
    Affine::mlx::<5, 64>("mlx5-g64", 0.046, encode),
    Affine::mlx::<5, 128>("mlx5-g128", 0.051, encode),
    Affine::mlx::<6, 32>("mlx6-g32", 0.022, encode),
    Affine::mlx::<6, 64>("mlx6-g64", 0.024, encode),
    Affine::mlx::<6, 128>("mlx6-g128", 0.026, encode),
    Affine::mlx::<8, 32>("mlx8-g32", 0.0091, encode),
    Affine::mlx::<8, 64>("mlx8-g64", 0.01, encode),
    Affine::mlx::<8, 128>("mlx8-g128", 0.011, encode),
];

per_level! {
    fn encode(
        bits: u8,
        group: usize,
        float: Float,
        values: &[f32],
        packed: &mut [u8],
        scales: &mut [u8],
        biases: &mut [u8],
    ) {
        match bits {
            2 => encode_groups::<2>(group, float, values, packed, scales, biases),
            3 => encode_groups::<3>(group, float, values, packed, scales, biases),
            4 => encode_groups::<4>(group, float, values, packed, scales, biases),
            5 => encode_groups::<5>(group, float, values, packed, scales, biases),
            6 => encode_groups::<6>(group, float, values, packed, scales, biases),
            _ => encode_groups::<8>(group, float, values, packed, scales, biases),
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
    biases: &mut [u8],
) {
    let bytes = group / 8 * BITS as usize;
    for (batch, (values, packed)) in values.chunks(LANES * group).zip(packed.chunks_mut(LANES * bytes)).enumerate() {
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        for (i, group) in values.chunks_exact(group).enumerate().take(LANES) {
            (low[i], high[i]) = bounds(group);
        }
        let (mut scale, mut bias) = ([0.0; LANES], [0.0; LANES]);
        for i in 0..LANES {
            (scale[i], bias[i]) = fit::<BITS>(low[i], high[i]);
        }
        let groups = values.chunks_exact(group).zip(packed.chunks_exact_mut(bytes));
        for (i, (values, packed)) in groups.enumerate().take(LANES) {
            for (v, out) in values.as_chunks::<32>().0.iter().zip(packed.chunks_exact_mut(4 * BITS as usize)) {
                pack32::<BITS>(&codes::<BITS>(v, scale[i], bias[i]), out);
            }
            float.write(scale[i], scales, batch * LANES + i);
            float.write(bias[i], biases, batch * LANES + i);
        }
    }
}

/// Scale and bias. The end of the range that lies farther from zero is hit exactly, and so is zero where it can be; the
/// scale is negative when that end is the upper one. All in `f32`, whatever type the scale is stored in.
#[inline(always)]
fn fit<const BITS: u32>(low: f32, high: f32) -> (f32, f32) {
    let steps = ((1u32 << BITS) - 1) as f32;
    let lower = low.abs() > high.abs();
    let width = (high - low) / steps;
    let width = if width < 1e-7 { 1e-7 } else { width };
    let (scale, edge) = if lower { (width, low) } else { (-width, high) };
    let zero = (edge / scale).round_ties_even();
    if zero == 0.0 { (scale, 0.0) } else { (edge / zero, edge) }
}

/// Codes of 32 values. Clamping before rounding gives the same code as after, and lets the addition of 2^23 round: it
/// leaves the integer in the low bits.
#[inline(always)]
fn codes<const BITS: u32>(values: &[f32; 32], scale: f32, bias: f32) -> [u8; 32] {
    let steps = ((1u32 << BITS) - 1) as f32;
    let mut codes = [0; 32];
    for (code, v) in codes.iter_mut().zip(values) {
        let q = (v - bias) / scale;
        let q = if q > 0.0 { q } else { 0.0 };
        let q = if q < steps { q } else { steps };
        *code = (q + 8_388_608.0).to_bits() as u8;
    }
    codes
}

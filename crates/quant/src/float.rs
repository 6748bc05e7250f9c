//! Slices of one float type to another, rounding to nearest even.

use windlass_tensor::DType;

use crate::Error;
use crate::simd::per_level;

/// Reads little-endian floats of type `dtype` into `f32`; `bytes` holds `out.len()` of them, at any alignment.
pub fn to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    check(dtype, bytes.len(), out.len())?;
    match dtype {
        DType::F32 => f32_from_bytes(bytes, out),
        DType::BF16 => f32_from_bf16(bytes, out),
        DType::F16 => f32_from_f16(bytes, out),
        DType::F64 => each(bytes, out, |b: [u8; 8]| f64::from_le_bytes(b) as f32),
        DType::F8E4M3 => each(bytes, out, |b: [u8; 1]| f8e4m3_to_f32(b[0])),
        DType::F8E5M2 => each(bytes, out, |b: [u8; 1]| half::f16::from_bits(u16::from(b[0]) << 8).to_f32()),
        _ => return Err(not_float(dtype)),
    }
    Ok(())
}

/// Writes `f32` values as little-endian floats of type `dtype`; `bytes` has room for exactly `values.len()` of them.
/// Values too large for an 8-bit float become its largest.
pub fn from_f32(dtype: DType, values: &[f32], bytes: &mut [u8]) -> Result<(), Error> {
    check(dtype, bytes.len(), values.len())?;
    match dtype {
        DType::F32 => f32_to_bytes(values, bytes),
        DType::BF16 => f32_to_bf16(values, bytes),
        DType::F16 => f32_to_f16(values, bytes),
        DType::F64 => each_back(values, bytes, |v| f64::from(v).to_le_bytes()),
        DType::F8E4M3 => each_back(values, bytes, |v| [f32_to_f8e4m3(v)]),
        _ => return Err(not_float(dtype)),
    }
    Ok(())
}

/// Values of E2M1 codes.
pub(crate) static E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The value of an OCP E4M3 code: bias 7, no infinities, `0x7f` and `0xff` not a number. Branch-free so that it
/// vectorises.
#[inline(always)]
pub fn f8e4m3_to_f32(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7f);
    let normal = (magnitude << 20) + (120 << 23);
    let subnormal = (magnitude as f32 * (1.0 / 512.0)).to_bits();
    let finite = if magnitude < 8 { subnormal } else { normal };
    let bits = if magnitude == 0x7f { 0x7fc0_0000 } else { finite };
    f32::from_bits(bits | u32::from(code & 0x80) << 24)
}

/// The nearest OCP E4M3 code, ties to even; beyond 448 the largest, not-a-number stays so. Branch-free as well.
#[inline(always)]
pub fn f32_to_f8e4m3(value: f32) -> u8 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal codes: rebias the exponent and round away 20 bits. Subnormal ones: a sum with 2^14 has steps of 2^-9.
    let normal = magnitude.wrapping_sub(120 << 23).wrapping_add(0x7_ffff + (magnitude >> 20 & 1)) >> 20;
    let subnormal = (f32::from_bits(magnitude) + 16384.0).to_bits().wrapping_sub(16384f32.to_bits());
    let code = if magnitude < 121 << 23 { subnormal } else { normal };
    let code = if magnitude >= 448f32.to_bits() { 0x7e } else { code };
    let code = if magnitude > 0x7f80_0000 { 0x7f } else { code };
    (code | bits >> 24 & 0x80) as u8
}

per_level! {
    fn f32_from_bytes(bytes: &[u8], out: &mut [f32]) {
        for (b, v) in bytes.as_chunks::<4>().0.iter().zip(out) {
            *v = f32::from_le_bytes(*b);
        }
    }
}

per_level! {
    fn f32_from_bf16(bytes: &[u8], out: &mut [f32]) {
        for (b, v) in bytes.as_chunks::<2>().0.iter().zip(out) {
            *v = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
        }
    }
}

per_level! {
    fn f32_from_f16(bytes: &[u8], out: &mut [f32]) {
        for (b, v) in bytes.as_chunks::<2>().0.iter().zip(out) {
            *v = f16_to_f32(u16::from_le_bytes(*b));
        }
    }
}

per_level! {
    fn f32_to_bytes(values: &[f32], bytes: &mut [u8]) {
        for (v, b) in values.iter().zip(bytes.as_chunks_mut::<4>().0) {
            *b = v.to_le_bytes();
        }
    }
}

per_level! {
    fn f32_to_bf16(values: &[f32], bytes: &mut [u8]) {
        for (v, b) in values.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *b = f32_to_bf16_bits(*v).to_le_bytes();
        }
    }
}

per_level! {
    fn f32_to_f16(values: &[f32], bytes: &mut [u8]) {
        for (v, b) in values.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *b = f32_to_f16_bits(*v).to_le_bytes();
        }
    }
}

/// Rounds to bfloat16; not-a-number becomes a quiet one.
#[inline(always)]
pub fn f32_to_bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    let quiet = (bits >> 16) as u16 | 0x40;
    if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }
}

/// Rounds to half precision, branch-free so that it vectorises: the addition of a magic number does the rounding.
#[inline(always)]
pub fn f32_to_f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = bits >> 16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal halves: rebias the exponent and round the 13 dropped bits to nearest even.
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
    // Subnormal halves: adding one half aligns the mantissa to steps of 2^-24 and rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    let special = if magnitude > 0x7f80_0000 { nan } else { 0x7c00 };
    // 65520 and more round to infinity.
    (sign | if magnitude >= 0x477f_f000 { special } else { finite }) as u16
}

/// The value of a half, branch-free so that it vectorises.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    let bits = u32::from(half);
    let shifted = (bits & 0x7fff) << 13;
    let normal = shifted + (112 << 23);
    let special = shifted + (224 << 23);
    // A subnormal is its mantissa in steps of 2^-24.
    let subnormal = ((bits & 0x3ff) as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let exponent = bits & 0x7c00;
    let magnitude = if exponent == 0 {
        subnormal
    } else if exponent == 0x7c00 {
        special
    } else {
        normal
    };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (b, v) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *v = f(*b);
    }
}

fn each_back<const N: usize>(values: &[f32], bytes: &mut [u8], f: impl Fn(f32) -> [u8; N]) {
    for (v, b) in values.iter().zip(bytes.as_chunks_mut::<N>().0) {
        *b = f(*v);
    }
}

fn check(dtype: DType, bytes: usize, values: usize) -> Result<(), Error> {
    if values.checked_mul(dtype.size()) == Some(bytes) {
        return Ok(());
    }
    Err(Error::Shape { scheme: dtype.name(), message: format!("{values} values do not fit {bytes} bytes") })
}

fn not_float(dtype: DType) -> Error {
    Error::Shape { scheme: dtype.name(), message: "is not a float type that converts".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Level, with_level};

    #[test]
    fn halves_equal_the_half_crate_on_every_code() {
        for code in 0..=u16::MAX {
            let expected = half::f16::from_bits(code);
            let value = f16_to_f32(code);
            assert!(value == expected.to_f32() || value.is_nan() && expected.is_nan(), "{code:04x}");
            if !value.is_nan() {
                assert_eq!(f32_to_f16_bits(value), code);
            }
        }
    }

    #[test]
    fn rounding_equals_the_half_crate() {
        let mut bits = 1u32;
        for _ in 0..2_000_000 {
            bits = bits.wrapping_mul(1664525).wrapping_add(1013904223);
            let v = f32::from_bits(bits);
            if !v.is_nan() {
                assert_eq!(f32_to_f16_bits(v), half::f16::from_f32(v).to_bits(), "{v:e}");
                assert_eq!(f32_to_bf16_bits(v), half::bf16::from_f32(v).to_bits(), "{v:e}");
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bytes() {
        let values: Vec<f32> = (0..1001).map(|i| (i as f32 - 500.0).powi(3) * 1e-9).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let run = |level| {
                with_level(level, || {
                    let mut bytes = vec![0; values.len() * dtype.size()];
                    from_f32(dtype, &values, &mut bytes).unwrap();
                    let mut back = vec![0.0; values.len()];
                    to_f32(dtype, &bytes, &mut back).unwrap();
                    (bytes, back)
                })
            };
            assert_eq!(run(Level::Avx512), run(Level::Portable));
            assert_eq!(run(Level::Avx2), run(Level::Portable));
        }
    }

    #[test]
    fn small_floats_go_there_and_back() {
        for code in 0..=255u8 {
            let value = f8e4m3_to_f32(code);
            if !value.is_nan() {
                assert_eq!(f32_to_f8e4m3(value), code, "{value}");
            }
        }
        assert_eq!(f32_to_f8e4m3(1e9), 0x7e);
        assert_eq!(f32_to_f8e4m3(17.0), f32_to_f8e4m3(16.0));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert!(to_f32(DType::F16, &[0; 3], &mut [0.0; 2]).is_err());
        assert!(from_f32(DType::I8, &[0.0], &mut [0]).is_err());
    }
}

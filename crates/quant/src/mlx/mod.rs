//! The schemes of MLX, bit for bit with its CPU back end.
//!
//! MLX keeps a packed matrix as separate arrays: codes in 32-bit words, and per group of a row a scale (and a bias). A
//! row's codes are one little-endian bit string, whatever their width.

use windlass_tensor::DType;

use crate::float::{f16_to_f32, f32_to_bf16_bits, f32_to_f16_bits};
use crate::{Error, SchemeRef};

mod affine;
pub(crate) mod bits;
pub(crate) mod small;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    let affine = affine::SCHEMES.iter().map(|s| s as SchemeRef);
    affine.chain(small::SCHEMES.iter().map(|s| s as SchemeRef)).collect()
}

/// Groups whose scales are found together, one per lane.
const LANES: usize = 16;

/// Float types that MLX computes in.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    pub(crate) fn new(scheme: &'static str, dtype: DType) -> Result<Float, Error> {
        match dtype {
            DType::F32 => Ok(Float::F32),
            DType::F16 => Ok(Float::F16),
            DType::BF16 => Ok(Float::Bf16),
            other => Err(Error::Shape { scheme, message: format!("computes in F32, F16 or BF16, not in {other}") }),
        }
    }

    #[inline(always)]
    pub(crate) fn size(self) -> usize {
        if let Float::F32 = self { 4 } else { 2 }
    }

    /// Rounds to this type.
    #[inline(always)]
    pub(crate) fn round(self, value: f32) -> f32 {
        match self {
            Float::F32 => value,
            Float::F16 => round_f16(value),
            Float::Bf16 => round_bf16(value),
        }
    }

    /// Rounds each of the values; the choice of type stays outside of the loop.
    #[inline(always)]
    pub(crate) fn round_all<const N: usize>(self, values: &mut [f32; N]) {
        match self {
            Float::F32 => {}
            Float::F16 => {
                for v in values {
                    *v = round_f16(*v);
                }
            }
            Float::Bf16 => {
                for v in values {
                    *v = round_bf16(*v);
                }
            }
        }
    }

    /// Element `index` of an array of this type; the caller has checked the length.
    #[inline(always)]
    pub(crate) fn read(self, bytes: &[u8], index: usize) -> f32 {
        let at = index * self.size();
        let half = |b: &[u8]| u16::from_le_bytes([b[at], b[at + 1]]);
        match self {
            Float::F32 => f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]),
            Float::F16 => f16_to_f32(half(bytes)),
            Float::Bf16 => f32::from_bits(u32::from(half(bytes)) << 16),
        }
    }

    /// Rounds and stores element `index` of an array of this type.
    #[inline(always)]
    pub(crate) fn write(self, value: f32, bytes: &mut [u8], index: usize) {
        let at = index * self.size();
        match self {
            Float::F32 => bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            Float::F16 => bytes[at..at + 2].copy_from_slice(&f32_to_f16_bits(value).to_le_bytes()),
            Float::Bf16 => bytes[at..at + 2].copy_from_slice(&f32_to_bf16_bits(value).to_le_bytes()),
        }
    }
}

#[inline(always)]
fn round_f16(value: f32) -> f32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Away go 13 bits of a normal half; a subnormal one is a multiple of 2^-24, the spacing of sums with one half.
    let normal = (magnitude + 0xfff + (magnitude >> 13 & 1)) & !0x1fff;
    let subnormal = (f32::from_bits(magnitude) + 0.5 - 0.5).to_bits();
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let special = if magnitude > 0x7f80_0000 { magnitude } else { 0x7f80_0000 };
    f32::from_bits(bits & 0x8000_0000 | if magnitude >= 0x477f_f000 { special } else { finite })
}

#[inline(always)]
fn round_bf16(value: f32) -> f32 {
    f32::from_bits(u32::from(f32_to_bf16_bits(value)) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_the_way_there_and_back() {
        let mut bits = 1u32;
        for _ in 0..2_000_000 {
            bits = bits.wrapping_mul(1664525).wrapping_add(1013904223);
            let value = f32::from_bits(bits);
            let expected = f16_to_f32(f32_to_f16_bits(value));
            assert!(round_f16(value).to_bits() == expected.to_bits() || value.is_nan(), "{value:e}");
        }
    }
}

//! `mlx-mxfp4`, `mlx-mxfp8` and `mlx-nvfp4`: small floats with an 8-bit scale per group.

use windlass_tensor::DType;

use super::Float;
use super::bits::{pack8, pack32};
use crate::float::{E2M1, f16_to_f32};
use crate::shape::check;
use crate::simd::codes::{Places, entries};
use crate::simd::{Level, ahead, level, per_level};
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

static STRING: Places = Places::string(4);

/// Which code and which scale.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// E2M1 codes, a power of two per 32.
    Mxfp4,
    /// E4M3 codes, a power of two per 32.
    Mxfp8,
    /// E2M1 codes, an E4M3 scale per 16.
    Nvfp4,
}

/// One of the modes.
pub struct Small {
    name: &'static str,
    mode: Mode,
    ceiling: f32,
    planes: &'static [Plane],
}

const fn planes(words: usize) -> [Plane; 2] {
    let packed = Plane::new("packed", PlaneType::Fixed(DType::U32), words);
    [packed, Plane::new("scales", PlaneType::Fixed(DType::U8), 1)]
}

pub static SCHEMES: [Small; 3] = [
    Small { name: "mlx-mxfp4", mode: Mode::Mxfp4, ceiling: 0.12, planes: &planes(4) },
    Small { name: "mlx-mxfp8", mode: Mode::Mxfp8, ceiling: 0.029, planes: &planes(8) },
    Small { name: "mlx-nvfp4", mode: Mode::Nvfp4, ceiling: 0.11, planes: &planes(2) },
];

impl Scheme for Small {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Mlx
    }

    fn grid(&self) -> Grid {
        match self.mode {
            Mode::Mxfp8 => Grid::SmallFloat { bits: 8, group: 32 },
            _ => Grid::Table16 { group: self.block() },
        }
    }

    fn block(&self) -> usize {
        if self.mode == Mode::Nvfp4 { 16 } else { 32 }
    }

    fn planes(&self) -> &'static [Plane] {
        self.planes
    }

    fn error_ceiling(&self) -> f32 {
        self.ceiling
    }

    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        _importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales] = planes {
            encode(self.mode, Float::new(self.name, float)?, values, packed, scales);
        }
        Ok(())
    }

    /// The product of code and scale is rounded to `float`, the type that MLX would return.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales] = planes {
            decode(self.mode, Float::new(self.name, float)?, packed, scales, values);
        }
        Ok(())
    }
}

per_level! {
    fn encode(mode: Mode, float: Float, values: &[f32], packed: &mut [u8], scales: &mut [u8]) {
        match mode {
            Mode::Mxfp4 => {
                let groups = values.as_chunks::<32>().0.iter().zip(packed.as_chunks_mut::<16>().0);
                for ((v, packed), code) in groups.zip(scales) {
                    let divisor = power_of_two(largest(v), 6.0, float, code);
                    pack32::<4>(&each(&scaled(v, divisor, float), to_e2m1), packed);
                }
            }
            Mode::Mxfp8 => {
                let groups = values.as_chunks::<32>().0.iter().zip(packed.as_chunks_mut::<32>().0);
                for ((v, packed), code) in groups.zip(scales) {
                    let divisor = power_of_two(largest(v), 448.0, float, code);
                    *packed = each(&scaled(v, divisor, float), to_e4m3);
                }
            }
            Mode::Nvfp4 => {
                let groups = values.as_chunks::<16>().0.iter().zip(packed.as_chunks_mut::<8>().0);
                for ((v, packed), code) in groups.zip(scales) {
                    *code = to_e4m3(float.round(largest(v) / 6.0));
                    let divisor = from_e4m3(*code);
                    let codes = each(&scaled(v, divisor, float), to_e2m1);
                    // A scale that vanished leaves nothing to divide by: every code is zero.
                    let keep = if divisor == 0.0 { 0 } else { u64::MAX };
                    for (eight, out) in codes.as_chunks::<8>().0.iter().zip(packed.as_chunks_mut::<4>().0) {
                        *out = (pack8::<4>(u64::from_le_bytes(*eight) & keep) as u32).to_le_bytes();
                    }
                }
            }
        }
    }
}

per_level! {
    fn decode(mode: Mode, float: Float, packed: &[u8], scales: &[u8], values: &mut [f32]) {
        let level = level();
        match mode {
            Mode::Mxfp4 => {
                for ((i, out), scale) in values.chunks_exact_mut(32).enumerate().zip(scales) {
                    let scale = float.round(exp2(i32::from(*scale) - 127));
                    decode_four(level, float, scale, &packed[16 * i..], out);
                }
            }
            Mode::Mxfp8 => {
                let groups = values.as_chunks_mut::<32>().0.iter_mut().zip(packed.as_chunks::<32>().0);
                for ((out, packed), scale) in groups.zip(scales) {
                    let scale = float.round(exp2(i32::from(*scale) - 127));
                    for (v, code) in out.iter_mut().zip(packed) {
                        *v = from_e4m3(*code) * scale;
                    }
                    float.round_all(out);
                }
            }
            Mode::Nvfp4 => {
                for ((i, out), scale) in values.chunks_exact_mut(16).enumerate().zip(scales) {
                    decode_four(level, float, from_e4m3(*scale), &packed[8 * i..], out);
                }
            }
        }
    }
}

/// A group of E2M1 codes, with what follows them.
#[inline(always)]
fn decode_four(level: Level, float: Float, scale: f32, packed: &[u8], values: &mut [f32]) {
    ahead(values);
    for (i, out) in values.as_chunks_mut().0.iter_mut().enumerate() {
        entries(level, &STRING, &E2M1, &packed[8 * i..], out);
    }
    for v in values {
        *v = float.round(*v * scale);
    }
}

/// Codes of all values.
#[inline(always)]
fn each<const N: usize>(values: &[f32; N], code: impl Fn(f32) -> u8) -> [u8; N] {
    let mut codes = [0; N];
    for (c, v) in codes.iter_mut().zip(values) {
        *c = code(*v);
    }
    codes
}

/// Largest magnitude.
#[inline(always)]
fn largest<const N: usize>(values: &[f32; N]) -> f32 {
    let mut high = [0.0f32; 16];
    for v in values.as_chunks::<16>().0 {
        for i in 0..16 {
            high[i] = if v[i].abs() > high[i] { v[i].abs() } else { high[i] };
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            high[i] = if high[i + half] > high[i] { high[i + half] } else { high[i] };
        }
    }
    high[0]
}

/// The least power of two that keeps `largest` within `top`, and its code. The quotient is rounded to the type of the
/// values first.
#[inline(always)]
fn power_of_two(largest: f32, top: f32, float: Float, code: &mut u8) -> f32 {
    let ratio = float.round(largest / top);
    if ratio == 0.0 {
        *code = 127;
        return 1.0;
    }
    // MLX lets the code of a quotient below 2^-126 wrap around, which cannot be read back; the least one serves here.
    let bits = ratio.to_bits();
    let biased = (bits >> 23) + u32::from(bits & 0x7f_ffff != 0);
    *code = biased as u8;
    float.round(exp2(biased as i32 - 127))
}

/// Two to the power of `exponent` in `f32`: subnormal, zero or infinite where it must be.
#[inline(always)]
fn exp2(exponent: i32) -> f32 {
    match exponent {
        128.. => f32::INFINITY,
        -126..128 => f32::from_bits(((exponent + 127) as u32) << 23),
        -149..-126 => f32::from_bits(1 << (exponent + 149)),
        _ => 0.0,
    }
}

/// Quotients in the type of the values.
#[inline(always)]
fn scaled<const N: usize>(values: &[f32; N], divisor: f32, float: Float) -> [f32; N] {
    let mut quotients = *values;
    for v in &mut quotients {
        *v /= divisor;
    }
    float.round_all(&mut quotients);
    quotients
}

/// Nearest E2M1 code; a value between two codes takes the smaller magnitude, and zero has no sign.
#[inline(always)]
fn to_e2m1(value: f32) -> u8 {
    let size = value.abs();
    let mut code = 0;
    for edge in [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0] {
        code += u32::from(size > edge);
    }
    let sign = if value < -0.25 { 8 } else { 0 };
    (code | sign) as u8
}

/// Nearest E4M3 code, ties to even, the largest beyond 448.
#[inline(always)]
pub(crate) fn to_e4m3(value: f32) -> u8 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal codes: rebias the exponent and round away 20 bits. Subnormal ones: a sum with 2^14 has steps of 2^-9.
    let normal = magnitude.wrapping_sub(120 << 23).wrapping_add(0x7_ffff + (magnitude >> 20 & 1)) >> 20;
    let subnormal = (f32::from_bits(magnitude) + 16384.0).to_bits().wrapping_sub(16384f32.to_bits());
    let code = if magnitude < 121 << 23 { subnormal } else { normal };
    let code = if magnitude >= 448f32.to_bits() { 0x7e } else { code };
    (code | bits >> 24 & 0x80) as u8
}

/// Value of an E4M3 code; MLX reads the code of not-a-number as 480.
#[inline(always)]
fn from_e4m3(code: u8) -> f32 {
    let size = f16_to_f32(u16::from(code & 0x7f) << 7) * 256.0;
    if code & 0x80 == 0 { size } else { -size }
}

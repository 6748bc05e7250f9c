//! `qint8` and `qfloat8`: `value = code * scale`, from the largest magnitude of each row.

use windlass_tensor::DType;

use crate::float::f16_to_f32;
use crate::mlx::Float;
use crate::mlx::small::to_e4m3;
use crate::shape::check;
use crate::simd::per_level;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// Integers or floats.
pub struct Bytes {
    name: &'static str,
    integer: bool,
    ceiling: f32,
    planes: [Plane; 2],
}

const fn bytes(name: &'static str, integer: bool, ceiling: f32) -> Bytes {
    let code = if integer { DType::I8 } else { DType::F8E4M3 };
    let scales = Plane::new("scales", PlaneType::Float, 0);
    Bytes { name, integer, ceiling, planes: [Plane::new("packed", PlaneType::Fixed(code), 1), scales] }
}

pub static SCHEMES: [Bytes; 2] = [bytes("qint8", true, 0.0088), bytes("qfloat8", false, 0.028)];

impl Scheme for Bytes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Quanto
    }

    /// A group is a row.
    fn grid(&self) -> Grid {
        match self.integer {
            true => Grid::Affine { bits: 8, group: 0, symmetric: true },
            false => Grid::SmallFloat { bits: 8, group: 0 },
        }
    }

    fn block(&self) -> usize {
        1
    }

    fn planes(&self) -> &'static [Plane] {
        // Only the static table above makes values of this type, and a row is found by its name.
        SCHEMES.iter().find(|s| s.name == self.name).map_or(&[], |s| &s.planes)
    }

    fn error_ceiling(&self) -> f32 {
        self.ceiling
    }

    /// Codes have the shape of the tensor; there is one scale for each row.
    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let rows = shape.len().saturating_sub(usize::from(index == 1));
        shape[..rows].to_vec()
    }

    /// Quanto computes in the type of the weights: every quotient is rounded to `float`. Of a row of zeros it makes floats
    /// that are not a number; here they stay zero.
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
            encode(self.integer, columns, Float::new(self.name, float)?, values, packed, scales);
        }
        Ok(())
    }

    /// Products are rounded to `float`.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales] = planes {
            decode(self.integer, columns, Float::new(self.name, float)?, packed, scales, values);
        }
        Ok(())
    }
}

per_level! {
    fn encode(integer: bool, columns: usize, float: Float, values: &[f32], packed: &mut [u8], scales: &mut [u8]) {
        let rows = values.chunks_exact(columns).zip(packed.chunks_exact_mut(columns));
        for (i, (values, packed)) in rows.enumerate() {
            let scale = float.round(largest(values) / if integer { 127.0 } else { 448.0 });
            float.write(scale, scales, i);
            for (v, code) in values.iter().zip(packed) {
                let q = float.round(v / scale);
                // A scale that vanished leaves nothing to divide by.
                let q = if q.is_nan() { 0.0 } else { q };
                *code = if integer { to_i8(q) } else { to_e4m3(q) };
            }
        }
    }
}

per_level! {
    fn decode(integer: bool, columns: usize, float: Float, packed: &[u8], scales: &[u8], values: &mut [f32]) {
        let rows = values.chunks_exact_mut(columns).zip(packed.chunks_exact(columns));
        for (i, (values, packed)) in rows.enumerate() {
            let scale = float.read(scales, i);
            for (v, code) in values.iter_mut().zip(packed) {
                *v = float.round(scale * if integer { f32::from(*code as i8) } else { from_e4m3(*code) });
            }
        }
    }
}

/// Largest magnitude; not-a-number is passed over.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut high = [0.0f32; 16];
    for v in blocks {
        for j in 0..16 {
            high[j] = if v[j].abs() > high[j] { v[j].abs() } else { high[j] };
        }
    }
    high.iter().chain(rest).fold(0.0, |largest, v| if v.abs() > largest { v.abs() } else { largest })
}

/// Rounds to the nearest integer, ties to even: the sum with 1.5 * 2^23 leaves it in the low bits.
#[inline(always)]
fn to_i8(value: f32) -> u8 {
    let value = if value > -128.0 { value } else { -128.0 };
    let value = if value < 127.0 { value } else { 127.0 };
    (value + 12_582_912.0).to_bits() as u8
}

/// Value of an OCP E4M3 code.
#[inline(always)]
fn from_e4m3(code: u8) -> f32 {
    let size = f16_to_f32(u16::from(code & 0x7f) << 7) * 256.0;
    let size = if code & 0x7f == 0x7f { f32::NAN } else { size };
    if code & 0x80 == 0 { size } else { -size }
}

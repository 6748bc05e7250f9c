//! `int8`: the row-wise 8-bit integers of LLM.int8() (arXiv 2208.07339), with no outliers held back.

use windlass_tensor::DType;

use super::four::largest;
use crate::float::{f16_to_f32, f32_to_f16_bits};
use crate::mlx::Float;
use crate::shape::check;
use crate::simd::per_level;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// The only one.
pub struct Int8;

static PLANES: [Plane; 2] =
    [Plane::new("packed", PlaneType::Fixed(DType::I8), 1), Plane::new("absmax", PlaneType::Fixed(DType::F32), 0)];

impl Scheme for Int8 {
    fn name(&self) -> &'static str {
        "int8"
    }

    fn family(&self) -> Family {
        Family::BitsAndBytes
    }

    /// A group is a row.
    fn grid(&self) -> Grid {
        Grid::Affine { bits: 8, group: 0, symmetric: true }
    }

    fn block(&self) -> usize {
        1
    }

    fn planes(&self) -> &'static [Plane] {
        &PLANES
    }

    fn error_ceiling(&self) -> f32 {
        0.0088
    }

    /// Codes have the shape of the tensor; there is one scale for each row.
    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let rows = shape.len().saturating_sub(usize::from(index == 1));
        shape[..rows].to_vec()
    }

    /// Values are halves first, whatever they were, as bitsandbytes makes them.
    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        _importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, absmax] = planes {
            encode(columns, values, packed, absmax.as_chunks_mut().0);
        }
        Ok(())
    }

    /// `code * absmax * (1 / 127)` in `f32`, then rounded to `float`.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, absmax] = planes {
            decode(columns, Float::new(self.name(), float)?, packed, absmax.as_chunks().0, values);
        }
        Ok(())
    }
}

per_level! {
    fn encode(columns: usize, values: &[f32], packed: &mut [u8], absmax: &mut [[u8; 4]]) {
        let rows = values.chunks_exact(columns).zip(packed.chunks_exact_mut(columns));
        let mut halves = vec![0.0; columns];
        for ((values, packed), absmax) in rows.zip(absmax) {
            for (half, v) in halves.iter_mut().zip(values) {
                *half = f16_to_f32(f32_to_f16_bits(*v));
            }
            let tail = halves.as_chunks::<32>().1.iter().fold(0.0, |high: f32, v| high.max(v.abs()));
            let largest = largest(&halves).max(tail);
            *absmax = largest.to_le_bytes();
            // Not their quotient: torch divides a number by a tensor in two steps.
            let scale = largest.recip() * 127.0;
            for (code, v) in packed.iter_mut().zip(&halves) {
                // Within +-127, or not a number, which becomes zero; the sum with 1.5 * 2^23 rounds to even.
                let q = v * scale;
                let q = if q.abs() <= 128.0 { q } else { 0.0 };
                *code = (q + 12_582_912.0).to_bits() as u8;
            }
        }
    }
}

per_level! {
    fn decode(columns: usize, float: Float, packed: &[u8], absmax: &[[u8; 4]], values: &mut [f32]) {
        let rows = values.chunks_exact_mut(columns).zip(packed.chunks_exact(columns));
        for ((values, packed), absmax) in rows.zip(absmax) {
            let scale = f32::from_le_bytes(*absmax);
            for (v, code) in values.iter_mut().zip(packed) {
                *v = float.round(f32::from(*code as i8) * scale * (1.0 / 127.0));
            }
        }
    }
}

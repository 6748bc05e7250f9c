//! `nf4-dq` and `fp4-dq`: the scales of blocks are themselves quantized, to an 8-bit dynamic map (arXiv 2110.02861) in
//! blocks of 256 scales of the flat tensor, after subtracting their mean over the whole tensor.

use std::sync::LazyLock;

use windlass_tensor::DType;

use super::four;
use crate::mlx::Float;
use crate::shape::check;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme, Tally};

/// Values per scale.
const BLOCK: usize = 64;
/// Scales per scale of scales.
const NESTED: usize = 256;

/// One table.
pub struct Nested {
    name: &'static str,
    normal: bool,
    ceiling: f32,
}

/// The mean of the scales is known to an `f32` ulp: bitsandbytes adds them up in an order that depends on the machine.
static PLANES: [Plane; 4] = [
    Plane::new("packed", PlaneType::Fixed(DType::U8), BLOCK / 2),
    Plane::new("absmax", PlaneType::Fixed(DType::U8), 1),
    Plane::new("nested_absmax", PlaneType::Fixed(DType::F32), 0),
    Plane::whole("offset", PlaneType::Fixed(DType::F32)),
];

pub static SCHEMES: [Nested; 2] =
    [Nested { name: "nf4-dq", normal: true, ceiling: 0.094 }, Nested { name: "fp4-dq", normal: false, ceiling: 0.125 }];

impl Scheme for Nested {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::BitsAndBytes
    }

    fn grid(&self) -> Grid {
        Grid::Table16 { group: BLOCK }
    }

    fn block(&self) -> usize {
        BLOCK
    }

    fn planes(&self) -> &'static [Plane] {
        &PLANES
    }

    fn error_ceiling(&self) -> f32 {
        self.ceiling
    }

    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let per_block = match index {
            0 => BLOCK / 2,
            1 => 1,
            2 => {
                let values = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
                return vec![values.div_ceil(BLOCK * NESTED)];
            }
            _ => return vec![1],
        };
        let mut shape = shape.to_vec();
        if let Some(columns) = shape.last_mut() {
            *columns = *columns / BLOCK * per_block;
        }
        shape
    }

    fn row_granularity(&self, columns: usize) -> usize {
        // The period is a power of two, so what a row shares with it is the lowest bit of its length.
        let period = BLOCK * NESTED;
        let shared = if columns == 0 { period } else { 1 << columns.trailing_zeros() };
        period / shared.min(period)
    }

    fn tallies(&self) -> bool {
        true
    }

    fn tally(&self, values: &[f32], _columns: usize, _float: DType) -> Tally {
        let mut tally = Tally::default();
        for block in values.chunks(BLOCK) {
            let largest = four::largest(block);
            tally.sum += f64::from(largest);
            tally.count += 1.0;
            tally.largest = tally.largest.max(f64::from(largest));
        }
        tally
    }

    /// The mean goes into the last plane.
    fn begin(&self, tally: &Tally, planes: &mut [&mut [u8]]) {
        let mean = if tally.count > 0.0 { tally.sum as f32 / tally.count as f32 } else { 0.0 };
        if let Some(offset) = planes.last_mut().and_then(|p| p.first_chunk_mut()) {
            *offset = mean.to_le_bytes();
        }
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
        let [packed, absmax, nested, offset] = planes else { return Ok(()) };
        let offset = f32::from_le_bytes(*offset.first_chunk().unwrap_or(&[0; 4]));
        let span = BLOCK * NESTED;
        let parts = values.chunks(span).zip(packed.chunks_mut(span / 2));
        let scales = absmax.chunks_mut(NESTED).zip(nested.as_chunks_mut::<4>().0);
        for ((values, packed), (codes, nested)) in parts.zip(scales) {
            let mut scales = [[0; 4]; NESTED];
            let scales = &mut scales[..codes.len()];
            four::encode(self.normal, BLOCK, values, packed, scales);
            *nested = quantize(scales, offset, codes).to_le_bytes();
        }
        Ok(())
    }

    /// Scales come back in `f32`; their products with the values are rounded to `float`, as bitsandbytes returns them.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        let float = Float::new(self.name, float)?;
        let [packed, absmax, nested, offset] = planes else { return Ok(()) };
        let offset = f32::from_le_bytes(*offset.first_chunk().unwrap_or(&[0; 4]));
        let span = BLOCK * NESTED;
        let parts = values.chunks_mut(span).zip(packed.chunks(span / 2));
        for ((values, packed), (codes, nested)) in parts.zip(absmax.chunks(NESTED).zip(nested.as_chunks::<4>().0)) {
            let mut scales = [[0; 4]; NESTED];
            let largest = f32::from_le_bytes(*nested);
            for (scale, code) in scales.iter_mut().zip(codes) {
                *scale = (map()[usize::from(*code)] * largest + offset).to_le_bytes();
            }
            four::decode(self.normal, BLOCK, float, packed, &scales[..codes.len()], values);
        }
        Ok(())
    }
}

/// Codes of the scales less `offset`; returns the largest magnitude, which they are relative to.
fn quantize(scales: &[[u8; 4]], offset: f32, codes: &mut [u8]) -> f32 {
    let centred = |scale: &[u8; 4]| f32::from_le_bytes(*scale) - offset;
    let largest = scales.iter().map(centred).fold(0.0, |high: f32, v| high.max(v.abs()));
    let inverse = 1.0 / largest;
    for (code, scale) in codes.iter_mut().zip(scales) {
        // bitsandbytes takes the lowest code of all, not that of zero, where there is nothing to divide by.
        *code = if largest == 0.0 { 0 } else { index(centred(scale) * inverse) };
    }
    largest
}

/// The index of the map's value nearest to the point of a grid of 65536 that `value` rounds to; ties go down.
fn index(value: f32) -> u8 {
    const LAST: f32 = 65535.0;
    let point = ((value.clamp(-1.0, 1.0) + 1.0) * 0.5 * LAST + 0.5).trunc();
    let value = -1.0 + 2.0 * point / LAST;
    let map = map();
    let above = map.partition_point(|v| *v < value).min(255);
    let below = above.saturating_sub(1);
    if (map[above] - value).abs() < (value - map[below]).abs() { above as u8 } else { below as u8 }
}

/// The dynamic map: 0, 1 and, for each of seven powers of ten, the middles of 1 to 64 equal parts of [0.1, 1] times it,
/// with both signs.
pub(super) fn map() -> &'static [f32; 256] {
    static MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
        let mut map = [0.0f32; 256];
        map[255] = 1.0;
        let mut next = 0;
        for (exponent, power) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0].into_iter().enumerate() {
            let parts = 1 << exponent;
            for part in 0..parts {
                let middle = power * ((boundary(part, parts) + boundary(part + 1, parts)) / 2.0);
                (map[next], map[next + 1]) = (middle, -middle);
                next += 2;
            }
        }
        map.sort_by(f32::total_cmp);
        map
    });
    &MAP
}

/// Boundary `index` of `parts` equal parts of [0.1, 1], from the nearer end and rounded once, as torch spaces them.
fn boundary(index: usize, parts: usize) -> f32 {
    let step = (1.0 - 0.1f32) / parts as f32;
    if index < parts.div_ceil(2) {
        step.mul_add(index as f32, 0.1)
    } else {
        (-step).mul_add((parts - index) as f32, 1.0)
    }
}

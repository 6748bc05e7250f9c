//! Weights in 8-bit floats (E4M3) with `f32` scales, as Hugging Face checkpoints keep them: `fp8-b128` (a scale for each
//! 128 x 128 values, DeepSeek's), `fp8-row`, and `fp8` (one scale for all).
//!
//! `value = code * scale`. Writing follows transformers' fine-grained quantizer, whose codes come from a reciprocal that
//! is not stored; `fp8`, where rows are written one after another, is therefore read only.

use std::sync::Arc;

use windlass_tensor::DType;

use crate::arrange::ArrangementRef;
use crate::float::{f8e4m3_to_f32, f32_to_f8e4m3};
use crate::row_major::RowMajor;
use crate::shape::check;
use crate::simd::per_level;
use crate::{Error, Family, Grid, Packing, Plane, PlaneType, Scheme, SchemeRef};

/// Rows and columns that share a scale.
const SIDE: usize = 128;

/// Values that are converted together.
const LANES: usize = 32;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Block,
    Row,
    Tensor,
}

/// One of the kinds of scales.
pub(crate) struct Fp8 {
    name: &'static str,
    kind: Kind,
}

static SCHEMES: [Fp8; 3] = [
    Fp8 { name: "fp8-b128", kind: Kind::Block },
    Fp8 { name: "fp8-row", kind: Kind::Row },
    Fp8 { name: "fp8", kind: Kind::Tensor },
];

const PACKED: Plane = Plane::new("packed", PlaneType::Fixed(DType::F8E4M3), 1);
static BY_ROWS: [Plane; 2] = [PACKED, Plane::new("scales", PlaneType::Fixed(DType::F32), 0)];
static WHOLE: [Plane; 2] = [PACKED, Plane::whole("scales", PlaneType::Fixed(DType::F32))];

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    SCHEMES.iter().map(|s| s as SchemeRef).collect()
}

/// How a checkpoint stores a matrix of an `fp8` scheme: `weight` F8_E4M3 `[rows, columns]`, and `weight_scale_inv` (of
/// Hugging Face) or `weight_scale` (of compressed-tensors and ModelOpt) of type `scale`: `[rows / 128, columns / 128]`
/// rounded up, `[rows, 1]` or `[1]`.
pub fn arrangement(inverse: bool, scale: DType) -> Result<ArrangementRef, String> {
    if !matches!(scale, DType::F32 | DType::BF16 | DType::F16 | DType::F8E8M0) {
        return Err(format!("scales of {scale} are not supported; F32, BF16, F16 and F8_E8M0 are"));
    }
    let names: &[&str] = if inverse { &["weight", "weight_scale_inv"] } else { &["weight", "weight_scale"] };
    let dtypes = vec![DType::F8E4M3, scale];
    Ok(Arc::new(RowMajor { holds: (Family::Fp8, "fp8"), names, dtypes, shape }))
}

/// Of a stack of matrices each has its own blocks, so they must be whole ones.
fn shape(index: usize, packing: &Packing, shape: &[usize]) -> Result<Vec<usize>, String> {
    match (index, packing.scheme.grid(), shape) {
        (1, Grid::SmallFloat { group: SIDE, .. }, [above @ .., rows, columns]) if !above.is_empty() => {
            if !rows.is_multiple_of(SIDE) {
                return Err(format!("a stack of matrices of {rows} rows is not in whole blocks of {SIDE}"));
            }
            Ok([above, &[rows / SIDE, columns.div_ceil(SIDE)]].concat())
        }
        _ => Ok(packing.scheme.plane_shape(index, shape)),
    }
}

impl Scheme for Fp8 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Fp8
    }

    /// Scales of rows and of whole tensors say a group of 0.
    fn grid(&self) -> Grid {
        Grid::SmallFloat { bits: 8, group: if self.kind == Kind::Block { SIDE } else { 0 } }
    }

    fn block(&self) -> usize {
        1
    }

    fn planes(&self) -> &'static [Plane] {
        if self.kind == Kind::Tensor { &WHOLE } else { &BY_ROWS }
    }

    /// Dimensions above the rows are rows here: blocks of 128 do not begin anew for each matrix of a stack.
    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let (Some((columns, above)), 1) = (shape.split_last(), index) else { return shape.to_vec() };
        match self.kind {
            Kind::Tensor => vec![1],
            Kind::Row => [above, &[1]].concat(),
            Kind::Block => {
                let rows = above.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
                vec![rows.div_ceil(SIDE), columns.div_ceil(SIDE)]
            }
        }
    }

    fn row_granularity(&self, _columns: usize) -> usize {
        if self.kind == Kind::Block { SIDE } else { 1 }
    }

    fn error_ceiling(&self) -> f32 {
        0.028
    }

    fn can_encode(&self) -> bool {
        self.kind != Kind::Tensor
    }

    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        _importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        if self.kind == Kind::Tensor {
            return Err(Error::ReadOnly(self.name));
        }
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales] = planes {
            encode(self.sides(columns), values, columns, packed, scales);
        }
        Ok(())
    }

    /// In `f32`, in which transformers computes; compressed-tensors rounds this to the type of its scales.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales] = planes {
            decode(self.sides(columns), packed, columns, scales, values);
        }
        Ok(())
    }
}

impl Fp8 {
    /// Rows and columns that share a scale.
    fn sides(&self, columns: usize) -> (usize, usize) {
        match self.kind {
            Kind::Block => (SIDE, SIDE),
            Kind::Row => (1, columns),
            Kind::Tensor => (usize::MAX, columns),
        }
    }
}

per_level! {
    fn decode(sides: (usize, usize), packed: &[u8], columns: usize, scales: &[u8], values: &mut [f32]) {
        let (height, width) = sides;
        let scales = scales.as_chunks::<4>().0;
        let per_row = columns.div_ceil(width);
        for (row, (packed, values)) in packed.chunks_exact(columns).zip(values.chunks_exact_mut(columns)).enumerate() {
            let scales = &scales[row / height * per_row..];
            for ((packed, values), scale) in packed.chunks(width).zip(values.chunks_mut(width)).zip(scales) {
                scaled(packed, f32::from_le_bytes(*scale), values);
            }
        }
    }
}

#[inline(always)]
fn scaled(packed: &[u8], scale: f32, values: &mut [f32]) {
    let (packed, packed_rest) = packed.as_chunks::<LANES>();
    let (values, values_rest) = values.as_chunks_mut::<LANES>();
    for (values, packed) in values.iter_mut().zip(packed) {
        for i in 0..LANES {
            values[i] = f8e4m3_to_f32(packed[i]) * scale;
        }
    }
    for (value, code) in values_rest.iter_mut().zip(packed_rest) {
        *value = f8e4m3_to_f32(*code) * scale;
    }
}

per_level! {
    fn encode(sides: (usize, usize), values: &[f32], columns: usize, packed: &mut [u8], scales: &mut [u8]) {
        let (height, width) = sides;
        let mut scales = scales.as_chunks_mut::<4>().0.iter_mut();
        let band = height.saturating_mul(columns);
        for (values, packed) in values.chunks(band).zip(packed.chunks_mut(band)) {
            for first in (0..columns).step_by(width) {
                let end = columns.min(first + width);
                let rows = values.chunks_exact(columns).map(|row| &row[first..end]);
                let (scale, inverse) = fit(rows.clone().fold(0, |bits, row| bits.max(largest(row))));
                if let Some(stored) = scales.next() {
                    *stored = inverse.to_le_bytes();
                }
                for (row, packed) in rows.zip(packed.chunks_exact_mut(columns)) {
                    codes(row, scale, &mut packed[first..end]);
                }
            }
        }
    }
}

/// Bits of the largest magnitude; those of not-a-number lie above infinity's.
#[inline(always)]
fn largest(values: &[f32]) -> u32 {
    let mut lanes = [0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for values in chunks {
        for i in 0..LANES {
            lanes[i] = lanes[i].max(values[i].to_bits() & 0x7fff_ffff);
        }
    }
    rest.iter().map(|v| v.to_bits() & 0x7fff_ffff).chain(lanes).max().unwrap_or(0)
}

/// What values are multiplied by, and its reciprocal, which is stored. Nothing to scale, or not-a-number, gives one.
#[inline(always)]
fn fit(bits: u32) -> (f32, f32) {
    let scale = if bits == 0 || bits > 0x7f80_0000 { 1.0 } else { 448.0 / f32::from_bits(bits) };
    (scale, 1.0 / scale)
}

#[inline(always)]
fn codes(values: &[f32], scale: f32, packed: &mut [u8]) {
    let (values, values_rest) = values.as_chunks::<LANES>();
    let (packed, packed_rest) = packed.as_chunks_mut::<LANES>();
    for (packed, values) in packed.iter_mut().zip(values) {
        for i in 0..LANES {
            packed[i] = f32_to_f8e4m3(values[i] * scale);
        }
    }
    for (code, value) in packed_rest.iter_mut().zip(values_rest) {
        *code = f32_to_f8e4m3(value * scale);
    }
}

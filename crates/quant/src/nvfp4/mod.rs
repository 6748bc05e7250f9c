//! Four-bit floats (E2M1) as checkpoints keep them: NVFP4 with a scale of the whole tensor (`nvfp4-ct`,
//! `nvfp4-modelopt`), and where MXFP4, MXFP8 and NVFP4 without one are those of MLX under other names.
//!
//! compressed-tensors divides an E4M3 scale by the tensor's, ModelOpt multiplies them; the quotient or product is rounded
//! to `f32` before codes are multiplied by it.

use std::sync::Arc;

use windlass_tensor::DType;

use crate::arrange::ArrangementRef;
use crate::float::{E2M1, f8e4m3_to_f32};
use crate::gather::matrix;
use crate::row_major::{RowMajor, ShapeOf};
use crate::shape::check;
use crate::simd::codes::{Places, entries};
use crate::simd::{ahead, level, per_level};
use crate::{Error, Family, Grid, Packing, Plane, PlaneType, Scheme, SchemeRef};

static STRING: Places = Places::string(4);

/// Values that share an E4M3 scale.
const GROUP: usize = 16;

/// One library's.
pub(crate) struct Nvfp4 {
    name: &'static str,
    family: Family,
}

static SCHEMES: [Nvfp4; 2] = [
    Nvfp4 { name: "nvfp4-ct", family: Family::CompressedTensors },
    Nvfp4 { name: "nvfp4-modelopt", family: Family::ModelOpt },
];

static PLANES: [Plane; 3] = [
    Plane::new("packed", PlaneType::Fixed(DType::U32), 2),
    Plane::new("scales", PlaneType::Fixed(DType::F8E4M3), 1),
    Plane::whole("global", PlaneType::Fixed(DType::F32)),
];

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    SCHEMES.iter().map(|s| s as SchemeRef).collect()
}

/// compressed-tensors' `nvfp4-pack-quantized` of a matrix: `weight_packed` U8 `[rows, columns / 2]`, the first of two
/// codes in the low half, `weight_scale` F8_E4M3 `[rows, columns / 16]`, `weight_global_scale` F32 `[1]`. Scheme
/// `nvfp4-ct`.
pub fn compressed_tensors() -> ArrangementRef {
    row_major(
        (Family::CompressedTensors, "nvfp4"),
        &["weight_packed", "weight_scale", "weight_global_scale"],
        [DType::U8, DType::F8E4M3, DType::F32],
        nv_shape,
    )
}

/// ModelOpt's NVFP4 of a matrix: as above, named `weight`, `weight_scale`, `weight_scale_2`. Scheme `nvfp4-modelopt`.
pub fn model_opt() -> ArrangementRef {
    row_major(
        (Family::ModelOpt, "nvfp4"),
        &["weight", "weight_scale", "weight_scale_2"],
        [DType::U8, DType::F8E4M3, DType::F32],
        nv_shape,
    )
}

/// gpt-oss: `..._blocks` U8 `[..., columns / 32, 16]` and `..._scales` U8 `[..., columns / 32]`. Scheme `mlx-mxfp4`.
pub fn gpt_oss() -> ArrangementRef {
    row_major((Family::Mlx, "mlx-mxfp4"), &["blocks", "scales"], [DType::U8, DType::U8], |index, packing, shape| {
        let mut shape = packing.scheme.plane_shape(1, shape);
        shape.extend((index == 0).then_some(16));
        Ok(shape)
    })
}

/// compressed-tensors' `mxfp4-pack-quantized`: `weight_packed` U8 `[..., columns / 2]`, `weight_scale` U8. Scheme
/// `mlx-mxfp4`.
pub fn compressed_mxfp4() -> ArrangementRef {
    row_major((Family::Mlx, "mlx-mxfp4"), &["weight_packed", "weight_scale"], [DType::U8, DType::U8], in_bytes)
}

/// compressed-tensors' `mxfp8-quantized`: `weight` F8_E4M3 `[..., columns]`, `weight_scale` U8. Scheme `mlx-mxfp8`.
pub fn compressed_mxfp8() -> ArrangementRef {
    row_major((Family::Mlx, "mlx-mxfp8"), &["weight", "weight_scale"], [DType::F8E4M3, DType::U8], in_bytes)
}

fn row_major<const N: usize>(
    holds: (Family, &'static str),
    names: &'static [&'static str; N],
    dtypes: [DType; N],
    shape: ShapeOf,
) -> ArrangementRef {
    Arc::new(RowMajor { holds, names, dtypes: dtypes.into(), shape })
}

/// Words are counted as bytes.
fn in_bytes(index: usize, packing: &Packing, shape: &[usize]) -> Result<Vec<usize>, String> {
    let mut shape = packing.scheme.plane_shape(index, shape);
    match shape.last_mut() {
        Some(last) if index == 0 => *last *= 4,
        _ => {}
    }
    Ok(shape)
}

fn nv_shape(index: usize, packing: &Packing, shape: &[usize]) -> Result<Vec<usize>, String> {
    matrix(shape)?;
    in_bytes(index, packing, shape)
}

impl Scheme for Nvfp4 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        self.family
    }

    fn grid(&self) -> Grid {
        Grid::Table16 { group: GROUP }
    }

    fn block(&self) -> usize {
        GROUP
    }

    fn planes(&self) -> &'static [Plane] {
        &PLANES
    }

    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        match (PLANES.get(index), shape.last_mut()) {
            (Some(plane), Some(columns)) if !plane.whole => *columns = *columns / GROUP * plane.per_block,
            _ => return vec![1],
        }
        shape
    }

    fn error_ceiling(&self) -> f32 {
        0.11
    }

    fn can_encode(&self) -> bool {
        false
    }

    fn encode(
        &self,
        _values: &[f32],
        _columns: usize,
        _importance: Option<&[f32]>,
        _float: DType,
        _planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        Err(Error::ReadOnly(self.name))
    }

    /// Not rounded: compressed-tensors returns bfloat16, ModelOpt the type of the model.
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        if let [packed, scales, global] = *planes
            && let Ok(global) = <[u8; 4]>::try_from(global).map(f32::from_le_bytes)
        {
            decode(self.family == Family::CompressedTensors, global, packed, scales, values);
        }
        Ok(())
    }
}

per_level! {
    fn decode(divide: bool, global: f32, packed: &[u8], scales: &[u8], values: &mut [f32]) {
        let level = level();
        for ((i, out), scale) in values.as_chunks_mut::<GROUP>().0.iter_mut().enumerate().zip(scales) {
            let scale = f8e4m3_to_f32(*scale);
            let scale = if divide { scale / global } else { scale * global };
            ahead(out);
            entries(level, &STRING, &E2M1, &packed[8 * i..], out);
            for v in out {
                *v *= scale;
            }
        }
    }
}

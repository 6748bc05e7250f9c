//! Integers of compressed-tensors: `ct{4,8}-{g32,g64,g128,row}`, read. Its floats are the schemes of
//! [`crate::fp8`] and [`crate::nvfp4`].
//!
//! Codes are stored with an offset of half their range, so a symmetric weight has that as its zero. The library computes
//! `(code - zero) * scale` in the type of the scales.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use windlass_tensor::DType;

use crate::arrange::{Arrangement, ArrangementRef, Array, Stored};
use crate::gather::{columns_of, invalid, matrix, order, planes, straight};
use crate::grouped::Grouped;
use crate::{Family, Grid, Packing, SchemeRef};

const fn ct(name: &'static str, bits: u8, group: Option<usize>) -> Grouped {
    Grouped::new(name, Family::CompressedTensors, bits, group)
}

pub(crate) static SCHEMES: [Grouped; 8] = [
    ct("ct4-g32", 4, Some(32)),
    ct("ct4-g64", 4, Some(64)),
    ct("ct4-g128", 4, Some(128)),
    ct("ct4-row", 4, None),
    ct("ct8-g32", 8, Some(32)),
    ct("ct8-g64", 8, Some(64)),
    ct("ct8-g128", 8, Some(128)),
    ct("ct8-row", 8, None),
];

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    SCHEMES.iter().map(|s| s as SchemeRef).collect()
}

/// What a quantization config says of integer weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integers {
    /// `pack-quantized`; otherwise `int-quantized` or `naive-quantized`, whose codes are bytes (`ct8` whatever their
    /// width).
    pub packed: bool,
    /// Without `weight_zero_point`.
    pub symmetric: bool,
    /// Strategy `tensor`: one scale for all rows of a `row` scheme.
    pub one_scale: bool,
    /// With `weight_g_idx`.
    pub g_idx: bool,
}

/// How such a matrix of a `ct` scheme is stored. Packed: `weight_packed` I32 `[rows, columns * bits / 32]`, `weight_scale`
/// `[rows, groups]` in the float type of the packing, `weight_shape` I64 `[2]`, `weight_zero_point` I32
/// `[rows * bits / 32, groups]`. In bytes: `weight` I8 `[rows, columns]`, `weight_scale`, `weight_zero_point` I8
/// `[rows, groups]`. Both: `weight_g_idx` I32 `[columns]`.
pub fn arrangement(of: Integers) -> ArrangementRef {
    Arc::new(Stores(of))
}

struct Stores(Integers);

/// Bits of a code and columns of a group.
fn widths(packing: &Packing, columns: usize) -> Result<(usize, usize), String> {
    match (packing.scheme.family(), packing.scheme.grid()) {
        (Family::CompressedTensors, Grid::Affine { bits, group, .. }) => {
            Ok((usize::from(bits), if group == 0 { columns.max(1) } else { group }))
        }
        _ => Err(format!("compressed-tensors' integers do not hold {}", packing.scheme.name())),
    }
}

impl Stores {
    /// The number of an array among those that are stored.
    fn find(arrays: &[Array], name: &str) -> Option<usize> {
        arrays.iter().position(|a| a.name == name)
    }
}

impl Arrangement for Stores {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        let of = self.0;
        let (rows, columns) = matrix(shape)?;
        let (bits, group) = widths(packing, columns)?;
        if columns == 0 || !columns.is_multiple_of(32) {
            return Err(format!("rows of {columns} values are not whole blocks of 32"));
        }
        if !of.packed && bits != 8 {
            return Err(format!("codes in bytes are 8 bits wide, those of {} are {bits}", packing.scheme.name()));
        }
        if of.one_scale && (group != columns || of.packed && !of.symmetric) {
            return Err(format!("one scale for a tensor does not suit {} as stored", packing.scheme.name()));
        }
        let per_row = if of.one_scale { vec![1] } else { vec![rows, columns.div_ceil(group)] };
        let words =
            |n: usize| n.checked_mul(bits).map(|n| n.div_ceil(32)).ok_or_else(|| format!("{shape:?} is too large"));
        let array = |name, dtype, shape| Array { name, dtype, shape };
        let mut arrays = Vec::new();
        if of.packed {
            arrays.push(array("weight_packed", DType::I32, vec![rows, words(columns)?]));
            arrays.push(array("weight_scale", packing.float, per_row.clone()));
            arrays.push(array("weight_shape", DType::I64, vec![2]));
        } else {
            arrays.push(array("weight", DType::I8, vec![rows, columns]));
            arrays.push(array("weight_scale", packing.float, per_row.clone()));
        }
        if !of.symmetric {
            arrays.push(match of.packed {
                true => array("weight_zero_point", DType::I32, vec![words(rows)?, columns.div_ceil(group)]),
                false => array("weight_zero_point", DType::I8, per_row),
            });
        }
        if of.g_idx {
            arrays.push(array("weight_g_idx", DType::I32, vec![columns]));
        }
        Ok(arrays)
    }

    fn gather(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        stored: &dyn Stored,
        filled: &mut [&mut [u8]],
    ) -> io::Result<()> {
        let arrays = self.arrays(packing, shape).map_err(invalid)?;
        let columns = columns_of(shape, &rows)?;
        let (bits, group) = widths(packing, columns).map_err(invalid)?;
        let groups = columns.div_ceil(group);
        let [packed, scales, zeros, g_idx] = planes(filled)?;
        let float = packing.float.size();
        for (name, plane, per_row) in
            [("packed", &*packed, columns / 8 * bits), ("scales", scales, groups * float), ("zeros", zeros, groups)]
        {
            if rows.len().checked_mul(per_row) != Some(plane.len()) {
                return Err(invalid(format!("plane {name} has {} bytes for {} rows", plane.len(), rows.len())));
            }
        }
        if let Some(array) = Self::find(&arrays, "weight_shape") {
            check_shape(stored, array, shape)?;
        }
        straight(stored, 0, &rows, packed)?;
        let zero_point = Self::find(&arrays, "weight_zero_point");
        match zero_point {
            None => zeros.fill(1 << (bits - 1)),
            Some(array) if self.0.packed => read_zeros(stored, array, (bits, groups), &rows, zeros)?,
            Some(array) => per_row(stored, array, &rows, 1, self.0.one_scale, zeros)?,
        }
        if !self.0.packed {
            signed_to_offset(packed);
            // Zeros that were filled in have their offset already.
            if zero_point.is_some() {
                signed_to_offset(zeros);
            }
        }
        per_row(stored, 1, &rows, float, self.0.one_scale, scales)?;
        order(stored, Self::find(&arrays, "weight_g_idx"), (columns, group), g_idx)
    }
}

/// The shape that is stored beside packed weights must be that of the tensor.
fn check_shape(stored: &dyn Stored, array: usize, shape: &[usize]) -> io::Result<()> {
    let mut bytes = [0; 16];
    stored.read(array, 0, &mut bytes)?;
    let found: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    if !found.iter().copied().eq(shape.iter().map(|d| *d as u64)) {
        return Err(invalid(format!("weight_shape says {found:?}, expected {shape:?}")));
    }
    Ok(())
}

/// Elements of `size` bytes that belong to rows, or one for all of them.
fn per_row(
    stored: &dyn Stored,
    array: usize,
    rows: &Range<usize>,
    size: usize,
    one: bool,
    plane: &mut [u8],
) -> io::Result<()> {
    if !one {
        return straight(stored, array, rows, plane);
    }
    let mut value = vec![0; size];
    stored.read(array, 0, &mut value)?;
    plane.chunks_exact_mut(size).for_each(|element| element.copy_from_slice(&value));
    Ok(())
}

/// Each group has one bit string along all rows, in words that stand `groups` apart.
fn read_zeros(
    stored: &dyn Stored,
    array: usize,
    (bits, groups): (usize, usize),
    rows: &Range<usize>,
    plane: &mut [u8],
) -> io::Result<()> {
    let first = rows.start * bits / 32;
    let words = (rows.end * bits).div_ceil(32) - first;
    let mut bytes = vec![0; words * groups * 4];
    stored.read(array, (first * groups * 4) as u64, &mut bytes)?;
    let mask = (0xff >> (8 - bits)) as u8;
    for (row, zeros) in plane.chunks_exact_mut(groups).enumerate() {
        // Codes of 4 or 8 bits do not cross the border of a byte.
        let bit = (rows.start + row) * bits - first * 32;
        for (group, zero) in zeros.iter_mut().enumerate() {
            let byte = bytes[(bit / 32 * groups + group) * 4 + bit % 32 / 8];
            *zero = byte >> (bit % 8) & mask;
        }
    }
    Ok(())
}

/// Signed bytes to codes around 128.
fn signed_to_offset(bytes: &mut [u8]) {
    for byte in bytes {
        *byte ^= 0x80;
    }
}

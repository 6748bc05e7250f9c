//! GPTQ checkpoints: `gptq{2,3,4,8}-{g32,g64,g128,row}`, read.
//!
//! Stored are codes and zeros in 32-bit words, transposed: `qweight` packs along the columns of the matrix, `qzeros` along
//! its rows. With act-order (`desc_act`) the columns of a group are scattered; `g_idx` says where. GPTQModel's torch
//! layer is the definition: `scales[g_idx] * (weight - zeros[g_idx])`.

use std::io;
use std::ops::Range;

use windlass_tensor::DType;

use crate::arrange::{Arrangement, ArrangementRef, Array, Stored};
use crate::gather::{columns_of, invalid, matrix, order, planes, turned};
use crate::grouped::Grouped;
use crate::{Family, Grid, Packing, SchemeRef};

const fn gptq(name: &'static str, bits: u8, group: Option<usize>) -> Grouped {
    Grouped::new(name, Family::Gptq, bits, group)
}

pub(crate) static SCHEMES: [Grouped; 16] = [
    gptq("gptq2-g32", 2, Some(32)),
    gptq("gptq2-g64", 2, Some(64)),
    gptq("gptq2-g128", 2, Some(128)),
    gptq("gptq2-row", 2, None),
    gptq("gptq3-g32", 3, Some(32)),
    gptq("gptq3-g64", 3, Some(64)),
    gptq("gptq3-g128", 3, Some(128)),
    gptq("gptq3-row", 3, None),
    gptq("gptq4-g32", 4, Some(32)),
    gptq("gptq4-g64", 4, Some(64)),
    gptq("gptq4-g128", 4, Some(128)),
    gptq("gptq4-row", 4, None),
    gptq("gptq8-g32", 8, Some(32)),
    gptq("gptq8-g64", 8, Some(64)),
    gptq("gptq8-g128", 8, Some(128)),
    gptq("gptq8-row", 8, None),
];

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    SCHEMES.iter().map(|s| s as SchemeRef).collect()
}

/// `checkpoint_format` of a quantization config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `gptq`: stored zeros are one less than the true ones.
    V1,
    /// `gptq_v2`.
    V2,
}

/// How a checkpoint stores a matrix of a `gptq` scheme: `qweight` I32 `[columns * bits / 32, rows]`, `qzeros` I32
/// `[groups, rows * bits / 32]`, `scales` `[groups, rows]` in the float type of the packing, and `g_idx` I32 `[columns]`
/// where it is present.
pub fn arrangement(version: Version, g_idx: bool) -> ArrangementRef {
    std::sync::Arc::new(Gptq { version, g_idx })
}

struct Gptq {
    version: Version,
    g_idx: bool,
}

/// Bits of a code and columns of a group.
fn widths(packing: &Packing, columns: usize) -> Result<(usize, usize), String> {
    match (packing.scheme.family(), packing.scheme.grid()) {
        (Family::Gptq, Grid::Affine { bits, group, .. }) => {
            Ok((usize::from(bits), if group == 0 { columns.max(1) } else { group }))
        }
        _ => Err(format!("GPTQ's arrangement does not hold {}", packing.scheme.name())),
    }
}

impl Arrangement for Gptq {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        let (rows, columns) = matrix(shape)?;
        let (bits, group) = widths(packing, columns)?;
        if columns == 0 || !columns.is_multiple_of(32) {
            return Err(format!("rows of {columns} values are not whole blocks of 32"));
        }
        if rows.checked_mul(bits).is_none_or(|n| n % 32 != 0) {
            return Err(format!("zeros of {rows} rows in {bits} bits do not fill words of 32 bits"));
        }
        let groups = columns.div_ceil(group);
        let array = |name, dtype, shape| Array { name, dtype, shape };
        let mut arrays = vec![
            array("qweight", DType::I32, vec![columns / 32 * bits, rows]),
            array("qzeros", DType::I32, vec![groups, rows * bits / 32]),
            array("scales", packing.float, vec![groups, rows]),
        ];
        if self.g_idx {
            arrays.push(array("g_idx", DType::I32, vec![columns]));
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
        self.arrays(packing, shape).map_err(invalid)?;
        let columns = columns_of(shape, &rows)?;
        let (bits, group) = widths(packing, columns).map_err(invalid)?;
        let groups = columns.div_ceil(group);
        let [packed, scales, zeros, g_idx] = planes(filled)?;
        // The words of one column of `qweight` are the bit string of one row.
        turned(stored, 0, (columns / 32 * bits, shape[0], 4), &rows, packed)?;
        let one = u8::from(self.version == Version::V1);
        read_zeros(stored, (bits, one), (groups, shape[0]), &rows, zeros)?;
        turned(stored, 2, (groups, shape[0], packing.float.size()), &rows, scales)?;
        order(stored, self.g_idx.then_some(3), (columns, group), g_idx)
    }
}

/// Each group has one bit string along all rows. Adding `one` wraps around, as the kernels do: a zero of 0 was stored as
/// the largest code.
fn read_zeros(
    stored: &dyn Stored,
    (bits, one): (usize, u8),
    (groups, all): (usize, usize),
    rows: &Range<usize>,
    plane: &mut [u8],
) -> io::Result<()> {
    if plane.len() != rows.len() * groups {
        return Err(invalid(format!("plane zeros has {} bytes for {groups} groups", plane.len())));
    }
    let mask = (0xff >> (8 - bits)) as u8;
    let first = rows.start * bits / 8;
    let mut bytes = vec![0; (rows.end * bits).div_ceil(8) - first];
    for group in 0..groups {
        stored.read(1, (group * all * bits / 8 + first) as u64, &mut bytes)?;
        for (row, zeros) in plane.chunks_exact_mut(groups).enumerate() {
            let bit = (rows.start + row) * bits - first * 8;
            let next = bytes.get(bit / 8 + 1).copied().unwrap_or(0);
            let code = u16::from_le_bytes([bytes[bit / 8], next]) >> (bit % 8);
            zeros[group] = (code as u8).wrapping_add(one) & mask;
        }
    }
    Ok(())
}

//! AWQ checkpoints of the GEMM kind: `awq4-{g32,g64,g128,row}`, read.
//!
//! `qweight` packs eight rows of the matrix into a word, in the order 0, 2, 4, 6, 1, 3, 5, 7 from its low end; `qzeros`
//! likewise. AutoAWQ's `dequantize_gemm` is the definition: `(weight - zero) * scale`.

use std::io;
use std::ops::Range;

use windlass_tensor::DType;

use crate::arrange::{Arrangement, ArrangementRef, Array, Stored};
use crate::gather::{columns_of, invalid, matrix, planes, turned};
use crate::grouped::Grouped;
use crate::{Family, Grid, Packing, SchemeRef};

pub(crate) static SCHEMES: [Grouped; 4] = [
    Grouped::new("awq4-g32", Family::Awq, 4, Some(32)),
    Grouped::new("awq4-g64", Family::Awq, 4, Some(64)),
    Grouped::new("awq4-g128", Family::Awq, 4, Some(128)),
    Grouped::new("awq4-row", Family::Awq, 4, None),
];

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    SCHEMES.iter().map(|s| s as SchemeRef).collect()
}

/// How the `version` of a quantization config stores a matrix of an `awq4` scheme. `gemm`: `qweight` I32
/// `[columns, rows / 8]`, `qzeros` I32 `[groups, rows / 8]`, `scales` `[groups, rows]` in the float type of the packing.
pub fn arrangement(version: &str) -> Result<ArrangementRef, String> {
    match version.to_ascii_lowercase().as_str() {
        "gemm" => Ok(std::sync::Arc::new(Gemm)),
        other => Err(format!("AWQ's version {other:?} is not supported; gemm is")),
    }
}

struct Gemm;

/// Rows in a word.
const WORD: usize = 8;

/// Where each of eight rows lies in a word, in nibbles from its low end.
const POSITIONS: [u32; WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Columns that are read together; 32 of them are 16 bytes of a plane.
const TILE: usize = 32;

fn group_of(packing: &Packing, columns: usize) -> Result<usize, String> {
    match (packing.scheme.family(), packing.scheme.grid()) {
        (Family::Awq, Grid::Affine { group: 0, .. }) => Ok(columns.max(1)),
        (Family::Awq, Grid::Affine { group, .. }) => Ok(group),
        _ => Err(format!("AWQ's arrangement does not hold {}", packing.scheme.name())),
    }
}

impl Arrangement for Gemm {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        let (rows, columns) = matrix(shape)?;
        let group = group_of(packing, columns)?;
        if columns == 0 || !columns.is_multiple_of(TILE) {
            return Err(format!("rows of {columns} values are not whole blocks of {TILE}"));
        }
        if !rows.is_multiple_of(WORD) {
            return Err(format!("{rows} rows do not fill words of {WORD}"));
        }
        let groups = columns.div_ceil(group);
        let array = |name, dtype, shape| Array { name, dtype, shape };
        Ok(vec![
            array("qweight", DType::I32, vec![columns, rows / WORD]),
            array("qzeros", DType::I32, vec![groups, rows / WORD]),
            array("scales", packing.float, vec![groups, rows]),
        ])
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
        let groups = columns.div_ceil(group_of(packing, columns).map_err(invalid)?);
        let [packed, scales, zeros] = planes(filled)?;
        read_codes(stored, (columns, shape[0]), &rows, packed)?;
        read_zeros(stored, (groups, shape[0]), &rows, zeros)?;
        turned(stored, 2, (groups, shape[0], packing.float.size()), &rows, scales)
    }
}

/// Words of an array that hold a range of rows: one line of them at a time.
struct Lines<'a> {
    stored: &'a dyn Stored,
    array: usize,
    /// Words of a whole line.
    words: usize,
    range: Range<usize>,
}

impl<'a> Lines<'a> {
    fn new(stored: &'a dyn Stored, array: usize, all: usize, rows: &Range<usize>) -> Self {
        Self { stored, array, words: all / WORD, range: rows.start / WORD..rows.end.div_ceil(WORD) }
    }

    fn read(&self, line: usize, bytes: &mut [u8]) -> io::Result<()> {
        self.stored.read(self.array, ((line * self.words + self.range.start) * 4) as u64, bytes)
    }
}

fn read_codes(
    stored: &dyn Stored,
    (columns, all): (usize, usize),
    rows: &Range<usize>,
    plane: &mut [u8],
) -> io::Result<()> {
    if plane.len() != rows.len() * columns / 2 {
        return Err(invalid(format!("plane packed has {} bytes for {} rows", plane.len(), rows.len())));
    }
    let lines = Lines::new(stored, 0, all, rows);
    let line = lines.range.len() * 4;
    let mut tile = vec![0; line * TILE];
    for first in (0..columns).step_by(TILE) {
        for (i, bytes) in tile.chunks_exact_mut(line.max(1)).enumerate() {
            lines.read(first + i, bytes)?;
        }
        for (row, out) in plane.chunks_exact_mut(columns / 2).enumerate() {
            let at = rows.start + row - lines.range.start * WORD;
            let (byte, high) = nibble(at);
            let out = &mut out[first / 2..][..TILE / 2];
            for (out, two) in out.iter_mut().zip(tile.chunks_exact(line * 2)) {
                *out = (two[byte] >> high & 15) | (two[line + byte] >> high & 15) << 4;
            }
        }
    }
    Ok(())
}

fn read_zeros(
    stored: &dyn Stored,
    (groups, all): (usize, usize),
    rows: &Range<usize>,
    plane: &mut [u8],
) -> io::Result<()> {
    if plane.len() != rows.len() * groups {
        return Err(invalid(format!("plane zeros has {} bytes for {groups} groups", plane.len())));
    }
    let lines = Lines::new(stored, 1, all, rows);
    let mut bytes = vec![0; lines.range.len() * 4];
    for group in 0..groups {
        lines.read(group, &mut bytes)?;
        for (row, zeros) in plane.chunks_exact_mut(groups).enumerate() {
            let (byte, high) = nibble(rows.start + row - lines.range.start * WORD);
            zeros[group] = bytes[byte] >> high & 15;
        }
    }
    Ok(())
}

/// The byte of a line that holds a row, and the bits below it there.
fn nibble(row: usize) -> (usize, u32) {
    let position = POSITIONS[row % WORD];
    (row / WORD * 4 + position as usize / 2, position % 2 * 4)
}

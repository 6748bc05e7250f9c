//! Steps that arrangements share: reads of stored arrays into rows of planes, a bounded piece at a time.

use std::io;
use std::ops::Range;

use crate::arrange::Stored;

/// Rows of a stored array that are read together where it is turned.
const TILE: usize = 16;

/// A stored array that does not say what it should.
pub(crate) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Rows and columns of a matrix.
pub(crate) fn matrix(shape: &[usize]) -> Result<(usize, usize), String> {
    match *shape {
        [rows, columns] => Ok((rows, columns)),
        _ => Err(format!("this arrangement holds matrices, not tensors of shape {shape:?}")),
    }
}

/// As [`matrix`], and the range must lie within the rows.
pub(crate) fn columns_of(shape: &[usize], rows: &Range<usize>) -> io::Result<usize> {
    let (all, columns) = matrix(shape).map_err(invalid)?;
    if rows.start > rows.end || rows.end > all {
        return Err(invalid(format!("rows {rows:?} of a matrix with {all} rows")));
    }
    Ok(columns)
}

/// The planes, if there are as many as an arrangement fills.
pub(crate) fn planes<'a, 'b, const N: usize>(planes: &'a mut [&'b mut [u8]]) -> io::Result<&'a mut [&'b mut [u8]; N]> {
    let found = planes.len();
    planes.try_into().map_err(|_| invalid(format!("{N} planes are filled, not {found}")))
}

/// Reads an array of elements of `size` bytes that is stored transposed, `[depth, all]`, into a plane `[rows, depth]`.
pub(crate) fn turned(
    stored: &dyn Stored,
    array: usize,
    (depth, all, size): (usize, usize, usize),
    rows: &Range<usize>,
    plane: &mut [u8],
) -> io::Result<()> {
    if plane.len() != rows.len() * depth * size {
        return Err(invalid(format!("a plane of {} bytes for {} rows of {depth}", plane.len(), rows.len())));
    }
    let line = rows.len() * size;
    let mut tile = vec![0; line * TILE.min(depth)];
    for first in (0..depth).step_by(TILE) {
        let lines = TILE.min(depth - first);
        for (i, line) in tile.chunks_exact_mut(line.max(1)).enumerate().take(lines) {
            stored.read(array, ((first + i) * all * size + rows.start * size) as u64, line)?;
        }
        for (row, out) in plane.chunks_exact_mut(depth * size).enumerate() {
            let out = &mut out[first * size..][..lines * size];
            for (out, line) in out.chunks_exact_mut(size).zip(tile.chunks_exact(line.max(1))) {
                out.copy_from_slice(&line[row * size..][..size]);
            }
        }
    }
    Ok(())
}

/// Reads the group of each column; `None` stands for columns in order. All of them zero, or all of them minus one, is
/// how some writers say that there is no order.
pub(crate) fn order(
    stored: &dyn Stored,
    array: Option<usize>,
    (columns, group): (usize, usize),
    plane: &mut [u8],
) -> io::Result<()> {
    if plane.len() != columns * 4 {
        return Err(invalid(format!("plane g_idx has {} bytes for {columns} columns", plane.len())));
    }
    if let Some(array) = array {
        stored.read(array, 0, plane)?;
    }
    let all = |value: i32| plane.as_chunks::<4>().0.iter().all(|b| i32::from_le_bytes(*b) == value);
    if array.is_none() || all(0) || all(-1) {
        for (column, entry) in plane.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *entry = ((column / group) as u32).to_le_bytes();
        }
    }
    let groups = columns.div_ceil(group);
    for (column, entry) in plane.as_chunks::<4>().0.iter().enumerate() {
        let found = i32::from_le_bytes(*entry);
        if !(0..groups as i64).contains(&i64::from(found)) {
            let expected = groups - 1;
            return Err(invalid(format!("g_idx puts column {column} into group {found}, expected 0 to {expected}")));
        }
    }
    Ok(())
}
/// Reads `rows` of an array that is row-major already; `plane` is as long as they are.
pub(crate) fn straight(stored: &dyn Stored, array: usize, rows: &Range<usize>, plane: &mut [u8]) -> io::Result<()> {
    match plane.len().checked_div(rows.len()) {
        Some(per_row) => stored.read(array, (rows.start * per_row) as u64, plane),
        None => Ok(()),
    }
}

//! Right matrices that are floats already.

use std::ops::Range;

use super::{CHUNK, Right};
use crate::isa::{self, Level, dispatch};
use crate::simd::{Simd, tile_pieces, transpose};

/// A matrix of floats: value `(i, j)` is `values[i * row + j * column]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub(crate) fn of_rows(values: &'a [f32], columns: usize) -> Self {
        Matrix { values, row: columns, column: 1 }
    }

    /// Rows and columns exchanged.
    pub(crate) fn turned(self) -> Self {
        Matrix { row: self.column, column: self.row, ..self }
    }
}

/// Columns that stand in panels already: `[panel][row][column of the panel]`, with this many rows.
pub(crate) struct Panels<'a> {
    pub values: &'a [f32],
    pub rows: usize,
}

impl Right for Panels<'_> {
    fn ready(&self) -> Option<(&[f32], usize)> {
        Some((self.values, self.rows))
    }

    unsafe fn fill(&self, _level: Level, _rows: Range<usize>, _columns: Range<usize>, _panels: *mut f32) {}
}

/// Another matrix from row `first` on, which is a multiple of [`CHUNK`].
pub(crate) struct From<'a> {
    pub right: &'a dyn Right,
    pub first: usize,
}

impl Right for From<'_> {
    fn together(&self) -> usize {
        self.right.together()
    }

    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32) {
        // SAFETY: the trait's promise; the rows exist in the other matrix.
        unsafe { self.right.fill(level, rows.start + self.first..rows.end + self.first, columns, panels) }
    }
}

impl Right for Matrix<'_> {
    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32) {
        // SAFETY: the trait's promise.
        unsafe { dispatch(level, Gather { matrix: self, rows, columns, panels }) }
    }
}

struct Gather<'a> {
    matrix: &'a Matrix<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    panels: *mut f32,
}

impl isa::Kernel for Gather<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (Gather { matrix, rows, columns, panels }, width) = (self, 2 * S::ROWS);
        for (at, first) in columns.clone().step_by(width).enumerate() {
            // SAFETY: there is room for the rows of each panel, which nobody else has.
            unsafe {
                let panel = std::slice::from_raw_parts_mut(panels.add(at * CHUNK * width), rows.len() * width);
                gather::<S>(matrix, rows.start, rows.len(), first, width.min(columns.end - first), panel);
            }
        }
    }
}

/// Fills the panel: `count` rows from `start` on, of `columns` columns from `first` on; zeros up to its width.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn gather<S: Simd>(right: &Matrix, start: usize, count: usize, first: usize, columns: usize, panel: &mut [f32]) {
    let width = 2 * S::ROWS;
    if right.column == 1 && columns == width {
        let last = (start + count - 1) * right.row + first + width;
        let values = &right.values[start * right.row + first..last];
        for k in 0..count {
            // SAFETY: the last row ends with `values`, and the panel has room for `count` rows.
            unsafe {
                let (from, to) = (values.as_ptr().add(k * right.row), panel.as_mut_ptr().add(k * width));
                S::prefetch(from.wrapping_add(8 * right.row).cast());
                S::store_float(to, S::load_float(from));
                S::store_float(to.add(S::ROWS), S::load_float(from.add(S::ROWS)));
            }
        }
        return;
    }
    let mut done = 0;
    if right.row == 1 && columns == width {
        done = count / 4 * 4;
        let stride = size_of::<f32>() * right.column;
        for half in 0..2 {
            let first = first + half * S::ROWS;
            let last = (first + S::ROWS - 1) * right.column + start + count;
            let values = &right.values[first * right.column + start..last];
            for k in (0..done).step_by(4) {
                // SAFETY: four values of each column end at or before the last of `values`, and the panel has their rows.
                unsafe {
                    let words = transpose::<S>(tile_pieces::<S>(values.as_ptr().add(k).cast(), stride));
                    for (i, word) in words.into_iter().enumerate() {
                        S::store_float(panel.as_mut_ptr().add((k + i) * width + half * S::ROWS), S::as_float(word));
                    }
                }
            }
        }
    }
    let panel = &mut panel[done * width..];
    for c in 0..if panel.is_empty() { 0 } else { width } {
        let to = panel[c..].iter_mut().step_by(width);
        if c >= columns {
            to.for_each(|to| *to = 0.0);
            continue;
        }
        let column = &right.values[(first + c) * right.column + (start + done) * right.row..];
        if right.row == 1 {
            to.zip(column).for_each(|(to, v)| *to = *v);
        } else {
            to.zip(column.iter().step_by(right.row.max(1))).for_each(|(to, v)| *to = *v);
        }
    }
}

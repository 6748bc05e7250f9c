//! Products of matrices of floats, wherever their values lie: panels of the right one are gathered into the cache and
//! used for all tiles of the left one.

use std::cell::RefCell;
use std::ops::Range;

use windlass_runtime::scheduler::Session;

use crate::isa::{self, Level, dispatch, level};
use crate::linear::{TileArguments, multiply_tile};
use crate::simd::Simd;
use crate::span::Span;

/// Rows of the right matrix that are gathered at once.
const CHUNK: usize = 512;

/// Most columns of a panel: two vectors of the widest level.
const PANEL: usize = 32;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

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

/// The left matrix in tiles of rows: `[tile][inner][row of the tile]`.
pub(crate) struct Left {
    level: Level,
    values: Vec<f32>,
    height: usize,
    rows: usize,
    inner: usize,
}

impl Left {
    /// Gathers `rows` times `inner` values.
    pub(crate) fn gather(matrix: &Matrix, rows: usize, inner: usize, session: &Session<'_>) -> Self {
        let level = level();
        let most = match level {
            Level::Portable => 4,
            Level::Avx2 => 6,
            Level::Avx512 | Level::Avx512Vnni => 12,
        };
        // Tiles of like height: 13 rows are 7 and 6, not 12 and 1.
        let height = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        let tiles = rows.div_ceil(height);
        let mut values = vec![0.0; tiles * inner * height];
        let target = Span::of(&mut values);
        session.split(tiles, (1 << 14) / (inner * height).max(1) + 1, &|range| {
            for tile in range {
                // SAFETY: tiles are disjoint.
                let target = unsafe { target.part(tile * inner * height..(tile + 1) * inner * height) };
                let first = tile * height;
                for m in 0..height.min(rows - first) {
                    let from = (first + m) * matrix.row;
                    if matrix.column == 1 {
                        let row = &matrix.values[from..from + inner];
                        target[m..].iter_mut().step_by(height).zip(row).for_each(|(to, v)| *to = *v);
                    } else {
                        let column = matrix.values[from..].iter().step_by(matrix.column);
                        target[m..].iter_mut().step_by(height).zip(column).take(inner).for_each(|(to, v)| *to = *v);
                    }
                }
            }
        });
        Left { level, values, height, rows, inner }
    }
}

/// `y` `[left.rows][columns]` becomes, or with `add` grows by, the columns `inner` of the left matrix times `right`, whose
/// first row goes with the first of `inner`.
pub(crate) fn multiply(
    left: &Left,
    inner: Range<usize>,
    right: &Matrix,
    columns: usize,
    y: &Span<f32>,
    add: bool,
    session: &Session<'_>,
) {
    session.balance(columns, PANEL, &|range| {
        let mut panel = SCRATCH.take();
        panel.resize(CHUNK * PANEL, 0.0);
        let work = Panels { left, inner: inner.clone(), right, columns, range, y, add, panel: &mut panel };
        // SAFETY: the level is this machine's; ranges of columns are disjoint, and all sizes are those of the matrices.
        unsafe { dispatch(left.level, work) }
        SCRATCH.set(panel);
    });
}

struct Panels<'a> {
    left: &'a Left,
    inner: Range<usize>,
    right: &'a Matrix<'a>,
    columns: usize,
    /// Columns of the result that this thread computes.
    range: Range<usize>,
    y: &'a Span<f32>,
    add: bool,
    panel: &'a mut [f32],
}

impl isa::Kernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = 2 * S::ROWS;
        for first in self.range.clone().step_by(width) {
            let columns = width.min(self.range.end - first);
            for start in (0..self.inner.len()).step_by(CHUNK) {
                let count = CHUNK.min(self.inner.len() - start);
                gather(self.right, start, count, first, columns, width, self.panel);
                for tile in 0..self.left.rows.div_ceil(self.left.height) {
                    // SAFETY: the tile and the columns exist; the panel holds them.
                    unsafe { self.tile::<S>(tile, start, count, first, columns) }
                }
            }
        }
    }
}

impl Panels<'_> {
    /// # Safety
    /// The tile exists, and the panel holds `count` rows of `columns` columns.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, tile: usize, start: usize, count: usize, first: usize, columns: usize) {
        let left = self.left;
        let rows = left.height.min(left.rows - tile * left.height);
        let new = !self.add && start == 0;
        let whole = rows == left.height && columns == 2 * S::ROWS;
        let mut local = [[0.0f32; PANEL]; 12];
        // SAFETY: results of the tile lie within `y`; those of a tile that is cut at an edge go through `local`.
        unsafe {
            let direct = self.y.at(tile * left.height * self.columns + first);
            if !whole && !new {
                for (m, row) in local.iter_mut().enumerate().take(rows) {
                    direct.add(m * self.columns).copy_to_nonoverlapping(row.as_mut_ptr(), columns);
                }
            }
            let at = (tile * left.inner + self.inner.start + start) * left.height;
            let arguments = TileArguments {
                count,
                weights: self.panel.as_ptr(),
                values: left.values.as_ptr().add(at),
                results: if whole { direct } else { local.as_mut_ptr().cast() },
                stride: if whole { self.columns } else { PANEL },
                new,
            };
            multiply_tile::<S>(left.height, arguments);
            if !whole {
                for (m, row) in local.iter().enumerate().take(rows) {
                    row.as_ptr().copy_to_nonoverlapping(direct.add(m * self.columns), columns);
                }
            }
        }
    }
}

/// Fills the panel: `count` rows from `start` on, of `columns` columns from `first` on; zeros up to `width`.
#[inline(always)]
fn gather(right: &Matrix, start: usize, count: usize, first: usize, columns: usize, width: usize, panel: &mut [f32]) {
    if right.column == 1 {
        for (k, to) in panel.chunks_exact_mut(width).take(count).enumerate() {
            let at = (start + k) * right.row + first;
            to[..columns].copy_from_slice(&right.values[at..at + columns]);
            to[columns..].fill(0.0);
        }
        return;
    }
    for c in 0..width {
        let to = panel[c..].iter_mut().step_by(width).take(count);
        if c >= columns {
            to.for_each(|to| *to = 0.0);
            continue;
        }
        let column = &right.values[(first + c) * right.column + start * right.row..];
        to.zip(column.iter().step_by(right.row.max(1))).for_each(|(to, v)| *to = *v);
    }
}

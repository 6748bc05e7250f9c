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

/// Panels that a tile meets while it is in the first cache.
const TOGETHER: usize = 4;

/// Most columns of a panel: two vectors of the widest level.
const PANEL: usize = 32;

thread_local! {
    /// Room that calls leave for the next ones: new memory costs more than what is done in it.
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Floats that are kept for the next call when they are dropped. What they hold at first is not known.
pub(crate) struct Room {
    values: Vec<f32>,
    count: usize,
}

impl Room {
    /// Room for so many floats.
    pub(crate) fn new(count: usize) -> Self {
        let spare = SPARE.try_with(|all| {
            let mut all = all.borrow_mut();
            // The smallest that is large enough, or the largest.
            let fits = |at: &usize| (all[*at].len() < count, all[*at].len());
            let best = (0..all.len()).min_by_key(fits);
            best.map(|at| all.swap_remove(at))
        });
        let mut values = spare.ok().flatten().unwrap_or_default();
        if values.len() < count {
            values.resize(count, 0.0);
        }
        Room { values, count }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        const MOST: usize = 8;
        let values = std::mem::take(&mut self.values);
        // A thread that ends has no spare room any more.
        let _ = SPARE.try_with(|all| {
            let mut all = all.borrow_mut();
            if all.len() < MOST {
                all.push(values);
            }
        });
    }
}

impl std::ops::Deref for Room {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.count]
    }
}

impl std::ops::DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.count]
    }
}

/// Columns of a panel on a level: two vectors.
pub(crate) fn panel_width(level: Level) -> usize {
    match level {
        Level::Portable => 8,
        Level::Avx2 => 16,
        Level::Avx512 | Level::Avx512Vnni => 32,
    }
}

/// The right matrix: somewhere, or in panels already: `[panel][row][column of the panel]`, with this many rows.
pub(crate) enum Right<'a> {
    Matrix(Matrix<'a>),
    Panels { values: &'a [f32], rows: usize },
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
    values: Room,
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
        let mut values = Room::new(tiles * inner * height);
        let target = Span::of(&mut values);
        session.split(tiles, (1 << 14) / (inner * height).max(1) + 1, &|range| {
            for tile in range {
                // SAFETY: tiles are disjoint.
                let target = unsafe { target.part(tile * inner * height..(tile + 1) * inner * height) };
                let first = tile * height;
                let count = height.min(rows - first);
                gather_tile(matrix, first, count, height, target);
            }
        });
        Left { level, values, height, rows, inner }
    }
}

/// Fills a tile: `[inner][height]`, of `count` rows from `first` on; zeros for the rest.
fn gather_tile(matrix: &Matrix, first: usize, count: usize, height: usize, target: &mut [f32]) {
    let at = |m: usize| first * matrix.row + m * matrix.row;
    if matrix.row == 1 {
        for (k, to) in target.chunks_exact_mut(height).enumerate() {
            let from = first + k * matrix.column;
            // A call for a dozen values would cost more than they do.
            for (m, to) in to.iter_mut().enumerate() {
                *to = if m < count { matrix.values[from + m] } else { 0.0 };
            }
        }
        return;
    }
    // Some columns at a time, so that what is written stays near.
    const COLUMNS: usize = 64;
    for (part, to) in target.chunks_mut(COLUMNS * height).enumerate() {
        let start = part * COLUMNS;
        for m in 0..height {
            let to = to[m..].iter_mut().step_by(height);
            if m >= count {
                to.for_each(|to| *to = 0.0);
            } else if matrix.column == 1 {
                to.zip(&matrix.values[at(m) + start..]).for_each(|(to, v)| *to = *v);
            } else {
                let row = matrix.values[at(m) + start * matrix.column..].iter().step_by(matrix.column);
                to.zip(row).for_each(|(to, v)| *to = *v);
            }
        }
    }
}

/// `y` `[left.rows][columns]` becomes, or with `add` grows by, the columns `inner` of the left matrix times `right`, whose
/// first row goes with the first of `inner`.
pub(crate) fn multiply(
    left: &Left,
    inner: Range<usize>,
    right: &Right,
    columns: usize,
    y: &Span<f32>,
    add: bool,
    session: &Session<'_>,
) {
    let together = (columns / (2 * PANEL * session.threads())).clamp(1, TOGETHER);
    session.balance(columns, together * PANEL, &|range| {
        let room = if matches!(right, Right::Matrix(_)) { CHUNK * PANEL * TOGETHER } else { 0 };
        let mut panels = Room::new(room);
        let work = Panels { left, inner: inner.clone(), right, columns, range, y, add, panels: &mut panels };
        // SAFETY: the level is this machine's; ranges of columns are disjoint, and all sizes are those of the matrices.
        unsafe { dispatch(left.level, work) }
    });
}

struct Panels<'a> {
    left: &'a Left,
    inner: Range<usize>,
    right: &'a Right<'a>,
    columns: usize,
    /// Columns of the result that this thread computes.
    range: Range<usize>,
    y: &'a Span<f32>,
    add: bool,
    panels: &'a mut [f32],
}

impl isa::Kernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = 2 * S::ROWS;
        for group in self.range.clone().step_by(TOGETHER * PANEL) {
            let group = group..self.range.end.min(group + TOGETHER * PANEL);
            for start in (0..self.inner.len()).step_by(CHUNK) {
                let count = CHUNK.min(self.inner.len() - start);
                let panels = || group.clone().step_by(width).enumerate();
                let columns = |first: usize| width.min(group.end - first);
                if let Right::Matrix(matrix) = self.right {
                    for (at, first) in panels() {
                        let room = &mut self.panels[at * CHUNK * width..][..count * width];
                        // SAFETY: the processor has the instructions.
                        unsafe { gather::<S>(matrix, start, count, first, columns(first), room) };
                    }
                }
                for tile in 0..self.left.rows.div_ceil(self.left.height) {
                    for (at, first) in panels() {
                        let panel = match self.right {
                            Right::Panels { values, rows } => &values[(first / width * rows + start) * width..],
                            Right::Matrix(_) => &self.panels[at * CHUNK * width..],
                        };
                        // SAFETY: the tile and the columns exist; the panel holds them.
                        unsafe { self.tile::<S>(tile, start, count, first, columns(first), panel.as_ptr()) }
                    }
                }
            }
        }
    }
}

impl Panels<'_> {
    /// # Safety
    /// The tile exists, and the panel holds `count` rows of `columns` columns.
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        tile: usize,
        start: usize,
        count: usize,
        first: usize,
        columns: usize,
        panel: *const f32,
    ) {
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
                weights: panel,
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
    for c in 0..width {
        let to = panel[c..].iter_mut().step_by(width);
        if c >= columns {
            to.for_each(|to| *to = 0.0);
            continue;
        }
        let column = &right.values[(first + c) * right.column + start * right.row..];
        if right.row == 1 {
            to.zip(column).for_each(|(to, v)| *to = *v);
        } else {
            to.zip(column.iter().step_by(right.row.max(1))).for_each(|(to, v)| *to = *v);
        }
    }
}

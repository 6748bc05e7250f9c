//! Products of matrices, wherever their values lie and whatever they are stored as: panels of the right one are made floats
//! in the cache and used for all tiles of the left one.

use std::ops::Range;

use windlass_runtime::scheduler::Session;

use crate::isa::{self, Level, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

mod micro;
mod room;
mod sources;

use micro::{Arguments, multiply_tile};
pub(crate) use room::Room;
pub(crate) use sources::{From, Matrix, Panels};

/// Rows of the right matrix that are gathered at once; the room of a panel.
pub(crate) const CHUNK: usize = 512;

/// Panels that a tile meets while it is in the first cache.
const TOGETHER: usize = 4;

/// Most columns of a panel: two vectors of the widest level.
pub(crate) const PANEL: usize = 32;

/// Columns of a panel on a level: two vectors.
pub(crate) fn panel_width(level: Level) -> usize {
    match level {
        Level::Portable => 8,
        Level::Avx2 => 16,
        Level::Avx512 | Level::Avx512Vnni => 32,
    }
}

/// The right matrix.
pub(crate) trait Right: Sync {
    /// Columns that are filled together, a multiple of [`PANEL`].
    fn together(&self) -> usize {
        PANEL
    }

    /// The panels, where they are there already: `[panel][row][column of the panel]`, with so many rows.
    fn ready(&self) -> Option<(&[f32], usize)> {
        None
    }

    /// Fills panels of [`panel_width`] columns, `[panel][CHUNK][column]`, with `rows`, at most [`CHUNK`] from a multiple of it
    /// on, and `columns` from a multiple of [`Right::together`] on. What lies beyond the last row or column may be anything.
    ///
    /// # Safety
    /// Rows and columns exist, there is room for all panels, and the level is this machine's.
    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32);
}

/// The left matrix in tiles of rows: `[tile][inner][row of the tile]`.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<'a> {
    pub level: Level,
    pub values: &'a [f32],
    /// Rows of a tile.
    pub height: usize,
    pub rows: usize,
    pub inner: usize,
}

impl Tiles<'_> {
    fn tiles(&self) -> usize {
        self.rows.div_ceil(self.height)
    }
}

/// Tiles that were gathered.
pub(crate) struct Left {
    level: Level,
    values: Room,
    height: usize,
    rows: usize,
    inner: usize,
}

impl Left {
    /// What was gathered.
    pub(crate) fn tiles(&self) -> Tiles<'_> {
        Tiles { level: self.level, values: &self.values, height: self.height, rows: self.rows, inner: self.inner }
    }

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
        let mut done = 0;
        if matrix.column == 1 {
            while done + 4 <= count.min(height) {
                let rows = [0, 1, 2, 3].map(|m| &matrix.values[at(done + m) + start..][..to.len() / height]);
                turn_four(rows, height, &mut to[done..]);
                done += 4;
            }
        }
        for m in done..height {
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

/// Writes four rows as columns that lie `height` apart.
fn turn_four(rows: [&[f32]; 4], height: usize, to: &mut [f32]) {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<4>().0);
    let mut lines = to.chunks_mut(height);
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        for i in 0..4 {
            if let Some(line) = lines.next().and_then(|line| line.first_chunk_mut::<4>()) {
                *line = [a[i], b[i], c[i], d[i]];
            }
        }
    }
    let done = rows[0].len() / 4 * 4;
    for (k, line) in (done..rows[0].len()).zip(lines) {
        line.iter_mut().zip(rows).for_each(|(to, row)| *to = row[k]);
    }
}

/// `y` `[left.rows][columns]` becomes, or with `add` grows by, the columns `inner` of the left matrix times `right`, whose
/// first row goes with the first of `inner`.
pub(crate) fn multiply(
    left: Tiles,
    inner: Range<usize>,
    right: &dyn Right,
    columns: usize,
    y: &Span<f32>,
    add: bool,
    session: &Session<'_>,
) {
    let together = (columns / (2 * PANEL * session.threads())).clamp(1, TOGETHER) * PANEL;
    session.balance(columns, together.next_multiple_of(right.together()), &|range| {
        multiply_part(left, inner.clone(), right, columns, range, y, add);
    });
}

/// The columns `range` of [`multiply`], on this thread: it begins at a multiple of what `right` wants together.
pub(crate) fn multiply_part(
    left: Tiles,
    inner: Range<usize>,
    right: &dyn Right,
    columns: usize,
    range: Range<usize>,
    y: &Span<f32>,
    add: bool,
) {
    let group = (TOGETHER * PANEL).next_multiple_of(right.together());
    let mut panels = Room::new(if right.ready().is_some() { 0 } else { CHUNK * group });
    let work = Product { left, inner, right, columns, range, group, y, add, panels: panels.as_mut_ptr() };
    // SAFETY: the level is this machine's; ranges of columns are disjoint, and all sizes are those of the matrices.
    unsafe { dispatch(left.level, work) }
}

struct Product<'a> {
    left: Tiles<'a>,
    inner: Range<usize>,
    right: &'a dyn Right,
    columns: usize,
    /// Columns of the result that this thread computes.
    range: Range<usize>,
    /// Columns whose panels are there together.
    group: usize,
    y: &'a Span<f32>,
    add: bool,
    panels: *mut f32,
}

impl isa::Kernel for Product<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (width, ready) = (2 * S::ROWS, self.right.ready());
        for group in self.range.clone().step_by(self.group) {
            let group = group..self.range.end.min(group + self.group);
            for start in (0..self.inner.len()).step_by(CHUNK) {
                let count = CHUNK.min(self.inner.len() - start);
                if ready.is_none() {
                    // SAFETY: there is room for as many panels; rows and columns exist.
                    unsafe { self.right.fill(self.left.level, start..start + count, group.clone(), self.panels) };
                }
                for tile in 0..self.left.tiles() {
                    for (at, first) in group.clone().step_by(width).enumerate() {
                        let panel = match ready {
                            Some((values, rows)) => values[(first / width * rows + start) * width..].as_ptr(),
                            None => self.panels.wrapping_add(at * CHUNK * width),
                        };
                        // SAFETY: the tile and the columns exist; the panel holds them.
                        unsafe { self.tile::<S>(tile, start, count, first, width.min(group.end - first), panel) }
                    }
                }
            }
        }
    }
}

impl Product<'_> {
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
            let arguments = Arguments {
                count,
                panel,
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

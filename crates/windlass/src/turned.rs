//! Rows that are stored as columns, as transformers stores the experts of gpt-oss: read as they are wanted elsewhere.

use windlass_catalog::Order;

use crate::Result;
use crate::rows::Reader;

/// Where a matrix lies in a larger one: its first row there, and how its rows follow.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub row: usize,
    pub order: Order,
}

/// A matrix on its way from one spot to another, of which at least one has its rows as columns.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Index of the source tensor.
    pub entry: usize,
    pub rows: usize,
    pub columns: usize,
    pub from: Spot,
    pub to: Spot,
}

impl Spot {
    /// The stored row and column of a cell of the matrix.
    fn cell(&self, row: usize, column: usize) -> (usize, usize) {
        match self.order {
            Order::Columns { first, step } => (self.row + column, first + step * row),
            order => (self.row + order.stored_row(row), column),
        }
    }

    fn turned(&self) -> bool {
        matches!(self.order, Order::Columns { .. })
    }
}

impl Turn {
    /// Stored rows that the target has of it: `to.row` and as many from there on.
    pub fn stored_rows(&self) -> usize {
        if self.to.turned() { self.columns } else { self.rows }
    }

    /// Fills its cells in rows `first..` of a target with rows of `width` values.
    pub fn read(&self, reader: &Reader, first: usize, width: usize, values: &mut [f32]) -> Result<()> {
        let end = first + values.len() / width.max(1);
        let (low, high) = (first.max(self.to.row), end.min(self.to.row + self.stored_rows()));
        if low >= high || self.rows == 0 || self.columns == 0 {
            return Ok(());
        }
        let (low, high) = (low - self.to.row, high - self.to.row);
        let (rows, columns) = if self.to.turned() { (0..self.rows, low..high) } else { (low..high, 0..self.columns) };
        // A line of the source is a row of the matrix, or a column of it.
        let by_columns = self.from.turned();
        let (along, across) = if by_columns { (rows, columns) } else { (columns, rows) };
        let cell = |line: usize, i: usize| if by_columns { (i, line) } else { (line, i) };
        let stored = |line: usize, i: usize| {
            let (row, column) = cell(line, i);
            self.from.cell(row, column)
        };
        let mut lines: Vec<(usize, usize)> = across.map(|line| (stored(line, along.start).0, line)).collect();
        lines.sort_unstable();
        let wanted = stored(0, along.start).1..stored(0, along.end - 1).1 + 1;
        reader.lines(&reader.source.tensors()[self.entry], &lines, wanted, |line, source| {
            for i in along.clone() {
                let (row, column) = cell(line, i);
                let (at, to) = self.to.cell(row, column);
                if let Some(value) = source.get(stored(line, i).1) {
                    values[(at - first) * width + to] = value;
                }
            }
        })
    }
}

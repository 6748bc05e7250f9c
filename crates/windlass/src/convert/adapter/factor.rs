//! A factor on its way from one container to another: stored transposed or not, scaled, its rank padded or cut.

use windlass_formats::Source;

use super::super::names::Segment;
use crate::Result;
use crate::rows::{Reader, ranges, rows_and_columns};

/// How a factor is made from the factor of another container.
#[derive(Debug, Clone)]
pub struct Factor {
    /// Index of the source tensor.
    pub entry: usize,
    /// Whether the source, and whether the output, is stored with rows and columns exchanged.
    pub source_turned: bool,
    pub turned: bool,
    /// Which row of the source each row of the factor is. Rows that no segment covers are zero, as are columns that the
    /// source does not have.
    pub segments: Vec<Segment>,
    /// What every value is multiplied with.
    pub scale: f32,
}

/// What is wanted of the source for one block of the output.
struct Wanted {
    /// Stored row of the source, and the row or column of the output that it fills; sorted.
    lines: Vec<(usize, usize)>,
    /// For each value of such a line, the stored column of the source.
    columns: Vec<Option<usize>>,
}

impl Factor {
    /// Stored rows `first..` of an output of this shape, as many as `values` has.
    pub fn read(&self, reader: &Reader, shape: &[usize], first: usize, values: &mut [f32]) -> Result<()> {
        let (_, width) = rows_and_columns(shape);
        values.fill(0.0);
        if values.is_empty() || width == 0 {
            return Ok(());
        }
        let count = values.len() / width;
        let wanted = self.wanted(reader.source, width, first, count);
        // A line of the source is a row of the output if both are stored alike, else a column.
        let alike = self.turned == self.source_turned;
        let columns = || wanted.columns.iter().flatten().copied();
        let (Some(low), Some(high)) = (columns().min(), columns().max()) else { return Ok(()) };
        let entry = &reader.source.tensors()[self.entry];
        reader.lines(entry, &wanted.lines, low..high + 1, |line, source| {
            let targets =
                wanted.columns.iter().enumerate().filter_map(|(i, column)| Some((i, source.get((*column)?)?)));
            for (i, value) in targets {
                let at = if alike { line * width + i } else { i * width + line };
                values[at] = value * self.scale;
            }
        })
    }

    fn wanted(&self, source: &Source, width: usize, first: usize, count: usize) -> Wanted {
        let (rows, columns) = rows_and_columns(source.tensors()[self.entry].shape());
        let below = |limit: usize, i: usize| (i < limit).then_some(i);
        let within = |i| self.source_row(i);
        let block = first..first + count;
        // Rows of the factor are sent through the segments; the other dimension stays in its order.
        let (lines, columns): (Vec<Option<usize>>, Vec<Option<usize>>) = match (self.turned, self.source_turned) {
            (false, false) => (block.map(within).collect(), (0..width).map(|i| below(columns, i)).collect()),
            (true, true) => (block.map(|i| below(rows, i)).collect(), (0..width).map(within).collect()),
            (true, false) => ((0..width).map(within).collect(), block.map(|i| below(columns, i)).collect()),
            (false, true) => ((0..width).map(|i| below(rows, i)).collect(), block.map(within).collect()),
        };
        let lines = lines.into_iter().enumerate().filter_map(|(i, line)| Some((line?, i)));
        let mut lines: Vec<(usize, usize)> = lines.collect();
        lines.sort_unstable();
        Wanted { lines, columns }
    }

    /// The row of the source that is row `row` of the factor.
    fn source_row(&self, row: usize) -> Option<usize> {
        let after = self.segments.partition_point(|s| s.first <= row);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (row - segment.first < segment.rows).then(|| segment.source_row(row))
    }

    /// Bytes of one row of the source, for the plan.
    pub fn source_row_bytes(&self, source: &Source) -> u64 {
        let entry = &source.tensors()[self.entry];
        ranges(entry.element(), rows_and_columns(entry.shape()).1, 0, 1).iter().map(|(_, bytes)| bytes).sum()
    }
}

//! What the tensors of a source give for the rows of an output: their planes in the output's order, or floats.

use windlass_formats::{Entry, Source};
use windlass_runtime::memory::{Buffer, Pool};

use super::names::{Content, Output, Segment};
use super::steps::{Step, parts};
use crate::Result;
use crate::rows::{self, Reader, packing, rows_and_columns, slices};

/// A source, and the memory to read it with.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub source: &'a Source,
    pub pool: &'a Pool,
}

impl Origin<'_> {
    /// The planes of the rows that `step` needs, in the order in which the output has them, if the source can be cut
    /// there.
    pub fn planes(&self, entry: &Entry, segment: &Segment, step: &Step) -> Result<Option<Vec<Buffer>>> {
        let (all, columns) = rows_and_columns(entry.shape());
        let granule = entry.row_granularity(columns);
        if segment.reorders() {
            let whole = packing(entry.element()).is_some_and(|p| p.scheme.planes().iter().any(|plane| plane.whole));
            return match (granule, entry.arrangement()) {
                (1, Some(_)) => self.gather_reordered(entry, segment, step),
                (1, None) if !whole => self.read_reordered(entry, segment, step).map(Some),
                _ => Ok(None),
            };
        }
        let first = segment.source_row(step.first);
        let end = first + step.rows;
        if !first.is_multiple_of(granule) || !(end.is_multiple_of(granule) || end == all) {
            return Ok(None);
        }
        self.reader().planes(entry, columns, first, step.rows).map(Some)
    }

    /// Reads the span of source rows at once where it is not much longer than what is needed, else row by row.
    fn read_reordered(&self, entry: &Entry, segment: &Segment, step: &Step) -> Result<Vec<Buffer>> {
        let (_, columns) = rows_and_columns(entry.shape());
        let rows = || (step.first..step.first + step.rows).map(|row| segment.source_row(row));
        let low = rows().min().unwrap_or(0);
        let span = rows().max().unwrap_or(0) - low + 1;
        let mut planes = Vec::new();
        for (plane, (_, bytes)) in rows::ranges(entry.element(), columns, 0, 1).into_iter().enumerate() {
            let bytes = bytes as usize;
            let mut buffer = self.pool.take("a block of the source", bytes * step.rows)?;
            if span > 2 * step.rows {
                for (row, out) in rows().zip(buffer.chunks_exact_mut(bytes)) {
                    self.source.read(entry, plane, (row * bytes) as u64, out)?;
                }
            } else {
                let mut all = self.pool.take("rows to be reordered", span * bytes)?;
                self.source.read(entry, plane, (low * bytes) as u64, &mut all)?;
                for (row, out) in rows().zip(buffer.chunks_exact_mut(bytes)) {
                    out.copy_from_slice(&all[(row - low) * bytes..][..bytes]);
                }
            }
            planes.push(buffer);
        }
        Ok(planes)
    }

    /// As [`Origin::read_reordered`], of an entry whose rows can only be read in the order they are stored in; not where
    /// the span is much longer than what is needed.
    fn gather_reordered(&self, entry: &Entry, segment: &Segment, step: &Step) -> Result<Option<Vec<Buffer>>> {
        let (_, columns) = rows_and_columns(entry.shape());
        let rows = || (step.first..step.first + step.rows).map(|row| segment.source_row(row));
        let low = rows().min().unwrap_or(0);
        let span = rows().max().unwrap_or(0) - low + 1;
        let Some(packing) = packing(entry.element()).filter(|_| span <= 2 * step.rows) else { return Ok(None) };
        let mut planes = self.reader().planes(entry, columns, low, span)?;
        for (plane, _) in planes.iter_mut().zip(packing.scheme.planes()).filter(|(_, about)| !about.whole) {
            let bytes = plane.len() / span;
            let mut ordered = self.pool.take("a block of the source", bytes * step.rows)?;
            for (row, out) in rows().zip(ordered.chunks_exact_mut(bytes.max(1))) {
                out.copy_from_slice(&plane[(row - low) * bytes..][..bytes]);
            }
            *plane = ordered;
        }
        Ok(Some(planes))
    }

    /// All values of rows `step` of an output.
    pub fn values(&self, output: &Output, step: &Step, values: &mut [f32]) -> Result<()> {
        let (_, columns) = rows_and_columns(&output.shape);
        match &output.content {
            Content::Rows(segments) => self.floats(columns, step, &parts(segments, step), values),
            Content::Turned(turns) => {
                turns.iter().try_for_each(|turn| turn.read(&self.reader(), step.first, columns, values))
            }
            Content::Factor(factor) => factor.read(&self.reader(), &output.shape, step.first, values),
            // Never packed.
            Content::Bytes(..) => Ok(()),
            Content::Values(all) => {
                values.copy_from_slice(&all[step.first..step.first + step.rows]);
                Ok(())
            }
        }
    }

    /// The values of `step`, which `parts` make up.
    pub fn floats(&self, columns: usize, step: &Step, parts: &[(&Segment, Step)], values: &mut [f32]) -> Result<()> {
        for (segment, part) in parts {
            let entry = &self.source.tensors()[segment.entry];
            let out = &mut values[(part.first - step.first) * columns..][..part.rows * columns];
            if entry.row_granularity(columns) == 1
                && entry.arrangement().is_none()
                && let Some(planes) = self.planes(entry, segment, part)?
            {
                rows::decode(entry.element(), &slices(&planes), columns, out)?;
            } else {
                let rows = (part.first..part.first + part.rows).map(|row| segment.source_row(row));
                self.reader().floats(entry, columns, rows, out)?;
            }
            if segment.shift != 0.0 {
                out.iter_mut().for_each(|v| *v += segment.shift);
            }
        }
        Ok(())
    }

    fn reader(&self) -> Reader<'_> {
        Reader { source: self.source, pool: self.pool, waits: true }
    }
}

//! Rows of a source: as their planes, or decoded to floats.

use std::ops::Range;

use windlass_formats::{Entry, Source};
use windlass_quant::{Packing, float};
use windlass_runtime::memory::{Buffer, Pool};
use windlass_tensor::Element;

use crate::{Code, Error, Result};

/// Values of lines that are read at a time.
const CHUNK: usize = 64 << 10;

/// Rows and columns as Windlass streams them: a vector has a row for each value, so that it can be cut and reordered
/// like a matrix.
pub fn rows_and_columns(shape: &[usize]) -> (usize, usize) {
    let columns = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
    (windlass_catalog::rows(shape), columns)
}

/// Where rows `first..first + rows` of `columns` values lie in each plane: offset and length. Shapes were checked when
/// the source was opened or the target laid out.
pub fn ranges(element: &Element, columns: usize, first: usize, rows: usize) -> Vec<(u64, u64)> {
    match element {
        Element::Plain(dtype) => {
            let row = (columns * dtype.size()) as u64;
            vec![(first as u64 * row, rows as u64 * row)]
        }
        Element::Packed(layout) => layout.plane_ranges(columns, first, rows).unwrap_or_default(),
    }
}

/// Reads rows of a source into buffers of a pool.
pub struct Reader<'a> {
    pub source: &'a Source,
    pub pool: &'a Pool,
    /// Whether to wait for others to give back memory, or to fail at once where there is nobody to wait for.
    pub waits: bool,
}

impl Reader<'_> {
    fn take(&self, what: &'static str, bytes: usize) -> Result<Buffer> {
        Ok(if self.waits { self.pool.take(what, bytes)? } else { self.pool.try_take(what, bytes)? })
    }

    /// The planes of rows `first..first + rows`; `first` is a multiple of the entry's granularity.
    pub fn planes(&self, entry: &Entry, columns: usize, first: usize, rows: usize) -> Result<Vec<Buffer>> {
        let sizes = ranges(entry.element(), columns, first, rows).into_iter();
        let planes = sizes.map(|(_, bytes)| self.take("a block of the source", bytes as usize));
        let mut planes: Vec<Buffer> = planes.collect::<Result<_>>()?;
        self.source.read_rows(entry, columns, first, rows, &mut slices_mut(&mut planes))?;
        Ok(planes)
    }

    /// Rows of an entry as floats, in the order of `rows`; `values` has a row for each.
    pub fn floats(
        &self,
        entry: &Entry,
        columns: usize,
        rows: impl Iterator<Item = usize> + Clone,
        values: &mut [f32],
    ) -> Result<()> {
        let (Some(low), Some(high)) = (rows.clone().min(), rows.clone().max()) else { return Ok(()) };
        let (all, granule) = (rows_and_columns(entry.shape()).0, entry.row_granularity(columns));
        let low = low / granule * granule;
        let high = (high + 1).next_multiple_of(granule).min(all);
        let count = values.len() / columns.max(1);
        if high - low == count && rows.clone().eq(low..high) {
            let planes = self.planes(entry, columns, low, count)?;
            return decode(entry.element(), &slices(&planes), columns, values);
        }
        if high - low > 2 * count.max(granule) {
            let single = |(row, out): (usize, &mut [f32])| self.floats(entry, columns, row..row + 1, out);
            return rows.zip(values.chunks_exact_mut(columns)).try_for_each(single);
        }
        let planes = self.planes(entry, columns, low, high - low)?;
        let mut span = self.take("rows to be reordered", (high - low) * columns * 4)?;
        let span = span.as_f32_mut();
        decode(entry.element(), &slices(&planes), columns, span)?;
        for (row, out) in rows.zip(values.chunks_exact_mut(columns)) {
            out.copy_from_slice(&span[(row - low) * columns..][..columns]);
        }
        Ok(())
    }

    /// Hands the wanted stretch of some rows of an entry to `take`, one after the other. `lines` are the rows, sorted, each with the
    /// number under which it is handed over.
    pub fn lines(
        &self,
        entry: &Entry,
        lines: &[(usize, usize)],
        columns: Range<usize>,
        mut take: impl FnMut(usize, Line),
    ) -> Result<()> {
        let (rows, width) = rows_and_columns(entry.shape());
        if let Some(dtype) = entry.element().dtype().filter(|_| columns.len() * 2 < width) {
            let mut bytes = self.take("a part of a row", columns.len() * dtype.size())?;
            let mut values = self.take("a part of a row", columns.len() * 4)?;
            for (row, line) in lines {
                self.source.read(entry, 0, ((row * width + columns.start) * dtype.size()) as u64, &mut bytes)?;
                float::to_f32(dtype, &bytes, values.as_f32_mut())?;
                take(*line, Line { first: columns.start, values: values.as_f32_mut() });
            }
            return Ok(());
        }
        let granule = entry.row_granularity(width);
        let at_once = (CHUNK / width.max(1)).max(1).next_multiple_of(granule);
        let mut rest = lines;
        while let Some((row, _)) = rest.first() {
            let begin = row / granule * granule;
            let many = rest.partition_point(|(row, _)| *row < begin + at_once);
            let end = (rest[many - 1].0 + 1).next_multiple_of(granule).min(rows);
            let planes = self.planes(entry, width, begin, end - begin)?;
            let mut values = self.take("rows of the source", (end - begin) * width * 4)?;
            let values = values.as_f32_mut();
            decode(entry.element(), &slices(&planes), width, values)?;
            for (row, line) in &rest[..many] {
                take(*line, Line { first: 0, values: &values[(row - begin) * width..][..width] });
            }
            rest = &rest[many..];
        }
        Ok(())
    }
}

/// A stretch of a row of the source.
pub struct Line<'a> {
    first: usize,
    values: &'a [f32],
}

impl Line<'_> {
    /// The value in this column of the row.
    pub fn get(&self, column: usize) -> Option<f32> {
        self.values.get(column.checked_sub(self.first)?).copied()
    }
}

/// The packing of an element, if it is one of ours.
pub fn packing(element: &Element) -> Option<Packing> {
    match element {
        Element::Packed(layout) => layout.as_any().downcast_ref::<Packing>().copied(),
        Element::Plain(_) => None,
    }
}

/// Decodes whole rows of any element to `f32`.
pub fn decode(element: &Element, planes: &[&[u8]], columns: usize, values: &mut [f32]) -> Result<()> {
    match (element, packing(element)) {
        (Element::Plain(dtype), _) => Ok(float::to_f32(*dtype, planes[0], values)?),
        (_, Some(p)) => Ok(p.scheme.decode(planes, columns, p.float, values)?),
        _ => Err(Error::new(Code::Usage, format!("{} cannot be decoded", element.name()))),
    }
}

/// Planes as slices.
pub fn slices(planes: &[Buffer]) -> Vec<&[u8]> {
    planes.iter().map(|plane| &**plane).collect()
}

/// Planes as slices to write to.
pub fn slices_mut(planes: &mut [Buffer]) -> Vec<&mut [u8]> {
    planes.iter_mut().map(|plane| &mut **plane).collect()
}

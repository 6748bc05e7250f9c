//! The work of a conversion: blocks of rows, each read, transformed and written on its own.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use windlass_formats::{Entry, Extent, Source};
use windlass_quant::arrange::{ArrangementRef, Stored};
use windlass_quant::{Moved, PlaneType, float, measure, repack};
use windlass_runtime::memory::{Buffer, Pool};
use windlass_runtime::monitor::Name;
use windlass_runtime::{pipeline, system};
use windlass_tensor::{DType, Element};

use super::journal::Journal;
use super::names::{Content, Output, Segment};
use super::steps::{Step, cut, granularity, parts, rows_at_once, rows_per_expert};
use crate::rows::{self, Reader, packing, rows_and_columns, slices, slices_mut};
use crate::{Code, Error, Result};

/// One output with everything that is needed to make it.
pub struct Piece {
    pub output: Output,
    pub element: Element,
    pub extents: Vec<Extent>,
    /// How its planes are stored, where that is not plane by plane.
    pub arrangement: Option<ArrangementRef>,
    /// Importance of each column, for each expert one after the other.
    pub importance: Option<Vec<f32>>,
    pub measure: bool,
    /// Whether a value that changes is an error.
    pub exact: bool,
}

/// All blocks of a conversion.
pub struct Blocks<'a> {
    pub(super) source: &'a Source,
    pub(super) pieces: &'a [Piece],
    sink: &'a dyn Sink,
    pub(super) pool: &'a Pool,
    /// What is done already, where that is kept.
    journal: Option<&'a Journal>,
    pub(super) steps: Vec<Step>,
    /// For each step, squared error and squared values as bits of `f64`: added up in order, whatever the threads.
    errors: Vec<[AtomicU64; 2]>,
    repacked: Vec<AtomicU64>,
    requantized: Vec<AtomicU64>,
    /// For each piece whose encoder must see it as a whole first: its planes that belong to the whole.
    pub(super) begun: Vec<OnceLock<Vec<Vec<u8>>>>,
    scatters: Mutex<()>,
}

/// What happened to one output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Blocks whose codes were carried over exactly.
    pub repacked: bool,
    /// Blocks that went through floats from one packing to another, or were quantized.
    pub requantized: bool,
    /// Root mean square of the error over that of the values; `None` where nothing was lost by construction.
    pub relative_error: Option<f64>,
}

impl<'a> Blocks<'a> {
    /// Cuts every piece into blocks.
    pub fn new(
        source: &'a Source,
        pieces: &'a [Piece],
        sink: &'a dyn Sink,
        pool: &'a Pool,
        journal: Option<&'a Journal>,
    ) -> Self {
        let steps = cut(source, pieces);
        let errors = steps.iter().map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        let counters = || pieces.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            source,
            pieces,
            sink,
            pool,
            journal,
            steps,
            errors,
            repacked: counters(),
            requantized: counters(),
            begun: pieces.iter().map(|_| OnceLock::new()).collect(),
            scatters: Mutex::new(()),
        }
    }

    /// Number of steps for these pieces.
    pub fn count(source: &Source, pieces: &[Piece]) -> usize {
        cut(source, pieces).len()
    }

    /// Most bytes that one step needs at a time.
    pub fn memory_per_step(source: &Source, pieces: &[Piece]) -> u64 {
        let need = |p: &Piece| {
            let (_, columns) = rows_and_columns(&p.output.shape);
            let values = (rows_at_once(source, p) * columns) as u64;
            let widest = match &p.output.content {
                Content::Rows(segments) => segments
                    .iter()
                    .map(|s| &source.tensors()[s.entry])
                    .map(|e| e.bytes().div_ceil(e.values().max(1)))
                    .max(),
                Content::Factor(factor) => Some(4 + factor.source_row_bytes(source).div_ceil(values.max(1))),
                Content::Turned(_) | Content::Values(_) | Content::Bytes(..) => None,
            };
            // Source bytes (twice where rows are reordered), floats, their decoded copy, output bytes; powers of two.
            2 * values * (2 * widest.unwrap_or(4) + 4 + 4 + 4)
        };
        pieces.iter().map(need).max().unwrap_or(0)
    }

    /// What happened to each piece; after all steps.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut sums = vec![(0.0, 0.0); self.pieces.len()];
        for (step, error) in self.steps.iter().zip(&self.errors) {
            let sum = &mut sums[step.piece];
            sum.0 += f64::from_bits(error[0].load(Ordering::Relaxed));
            sum.1 += f64::from_bits(error[1].load(Ordering::Relaxed));
        }
        let outcome = |(i, (error, values)): (usize, (f64, f64))| Outcome {
            repacked: self.repacked[i].load(Ordering::Relaxed) > 0,
            requantized: self.requantized[i].load(Ordering::Relaxed) > 0,
            relative_error: self.pieces[i].measure.then(|| match error {
                0.0 => 0.0,
                _ if error.is_finite() && values > 0.0 => (error / values).sqrt(),
                _ => f64::INFINITY,
            }),
        };
        sums.into_iter().enumerate().map(outcome).collect()
    }

    fn make(&self, index: usize) -> Result<()> {
        let step = &self.steps[index];
        let piece = &self.pieces[step.piece];
        match &piece.output.content {
            Content::Values(values) => {
                let values = &values[step.first..step.first + step.rows];
                self.encode(index, piece, step, values)
            }
            Content::Bytes(_, bytes) => {
                let (offset, length) =
                    rows::ranges(&piece.element, rows_and_columns(&piece.output.shape).1, step.first, step.rows)[0];
                self.write(piece, step, &[&bytes[offset as usize..(offset + length) as usize]])
            }
            Content::Turned(_) | Content::Factor(_) => {
                let (_, columns) = rows_and_columns(&piece.output.shape);
                let mut values = self.pool.take("a block of floats", step.rows * columns * 4)?;
                self.values(step, values.as_f32_mut())?;
                self.encode(index, piece, step, values.as_f32_mut())
            }
            Content::Rows(segments) => {
                let parts = parts(segments, step);
                if granularity(piece) == 1 {
                    return parts.iter().try_for_each(|(segment, part)| self.make_part(index, piece, segment, part));
                }
                // Rows that are coded together may come from several tensors.
                match parts.as_slice() {
                    [(segment, part)] => self.make_part(index, piece, segment, part),
                    _ => self.requantize(index, piece, step, &parts),
                }
            }
        }
    }

    fn make_part(&self, index: usize, piece: &Piece, segment: &Segment, part: &Step) -> Result<()> {
        if self.carry(index, piece, segment, part)? {
            return Ok(());
        }
        self.requantize(index, piece, part, &[(segment, *part)])
    }

    /// Carries codes over without going through floats, where source and output have one grid; false where they do not.
    fn carry(&self, index: usize, piece: &Piece, segment: &Segment, step: &Step) -> Result<bool> {
        let entry = &self.source.tensors()[segment.entry];
        let (from, to) = (packing(entry.element()), packing(&piece.element));
        let same = *entry.element() == piece.element && from.map(|p| p.float) == to.map(|p| p.float);
        let repack = from.zip(to).filter(|_| !same).and_then(|(from, to)| repack(from, to));
        let alone = segment.rows == rows_and_columns(&piece.output.shape).0;
        let whole = from.is_some_and(|p| p.scheme.planes().iter().any(|plane| plane.whole));
        if segment.shift != 0.0 || !(same || repack.is_some()) || (same && whole && !alone) {
            return Ok(false);
        }
        let Some(planes) = self.planes(entry, segment, step)? else { return Ok(false) };
        let Some(repack) = repack else {
            return self.write(piece, step, &slices(&planes)).map(|()| true);
        };
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let mut out = self.output_buffers(piece, step)?;
        match repack.rows_nearly(&slices(&planes), columns, &mut slices_mut(&mut out))? {
            Some(Moved::Exactly) => self.repacked[step.piece].fetch_add(1, Ordering::Relaxed),
            Some(Moved::Rounded) => {
                let mut values = self.pool.take("a block of floats", step.rows * columns * 4)?;
                let mut decoded = self.pool.take("a block of decoded floats", step.rows * columns * 4)?;
                let (values, decoded) = (values.as_f32_mut(), decoded.as_f32_mut());
                rows::decode(entry.element(), &slices(&planes), columns, values)?;
                rows::decode(&piece.element, &slices(&out), columns, decoded)?;
                self.record_error(index, values, decoded);
                self.requantized[step.piece].fetch_add(1, Ordering::Relaxed)
            }
            None => return Ok(false),
        };
        self.write(piece, step, &slices(&out)).map(|()| true)
    }

    /// The planes of the rows that `step` needs, in the order in which the output has them, if the source can be cut
    /// there.
    fn planes(&self, entry: &Entry, segment: &Segment, step: &Step) -> Result<Option<Vec<Buffer>>> {
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

    /// As [`Blocks::read_reordered`], of an entry whose rows can only be read in the order they are stored in; not where
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

    /// Through floats: decode, shift, encode.
    fn requantize(&self, index: usize, piece: &Piece, step: &Step, parts: &[(&Segment, Step)]) -> Result<()> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let mut values = self.pool.take("a block of floats", step.rows * columns * 4)?;
        let values = values.as_f32_mut();
        self.floats(columns, step, parts, values)?;
        self.encode(index, piece, step, values)
    }

    /// All values of `step`.
    pub(super) fn values(&self, step: &Step, values: &mut [f32]) -> Result<()> {
        let output = &self.pieces[step.piece].output;
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
    fn floats(&self, columns: usize, step: &Step, parts: &[(&Segment, Step)], values: &mut [f32]) -> Result<()> {
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

    /// Checks, encodes, measures and writes the values of `step`.
    fn encode(&self, index: usize, piece: &Piece, step: &Step, values: &[f32]) -> Result<()> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let mut out = self.output_buffers(piece, step)?;
        let importance = piece.importance.as_ref().and_then(|all| {
            let from = step.first / rows_per_expert(&piece.output.shape) * columns;
            all.get(from..from + columns).or_else(|| all.get(..columns))
        });
        self.check_range(piece, step, values)?;
        for (plane, begun) in out.iter_mut().zip(self.begun[step.piece].get().into_iter().flatten()) {
            if plane.len() == begun.len() {
                plane.copy_from_slice(begun);
            }
        }
        let float = self.source_float(piece, step);
        encode(&piece.element, float, values, columns, importance, &mut slices_mut(&mut out))?;
        if packing(&piece.element).is_some() {
            self.requantized[step.piece].fetch_add(1, Ordering::Relaxed);
        }
        if piece.measure {
            let mut decoded = self.pool.take("a block of decoded floats", values.len() * 4)?;
            let decoded = decoded.as_f32_mut();
            rows::decode(&piece.element, &slices(&out), columns, decoded)?;
            if piece.exact {
                self.check_unchanged(piece, step, values, decoded)?;
            }
            self.record_error(index, values, decoded);
        }
        self.write(piece, step, &slices(&out))
    }

    /// The float type that the values of `step` had before they became `f32`.
    pub(super) fn source_float(&self, piece: &Piece, step: &Step) -> DType {
        let Content::Rows(segments) = &piece.output.content else { return DType::F32 };
        let segment = segments.iter().find(|s| s.first + s.rows > step.first);
        segment.map_or(DType::F32, |segment| float_of(self.source.tensors()[segment.entry].element()))
    }

    fn reader(&self) -> Reader<'_> {
        Reader { source: self.source, pool: self.pool, waits: true }
    }

    fn record_error(&self, index: usize, values: &[f32], decoded: &[f32]) {
        let (error, norm) = measure::squared_error(values, decoded);
        for (slot, sum) in self.errors[index].iter().zip([error, norm]) {
            // A step is made by one worker, so reading and writing back is not a race.
            let before = f64::from_bits(slot.load(Ordering::Relaxed));
            let sum = if sum.is_finite() { before + sum } else { f64::INFINITY };
            slot.store(sum.to_bits(), Ordering::Relaxed);
        }
    }

    fn output_buffers(&self, piece: &Piece, step: &Step) -> Result<Vec<Buffer>> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let sizes = rows::ranges(&piece.element, columns, step.first, step.rows).into_iter();
        sizes.map(|(_, bytes)| Ok(self.pool.take("a block of the output", bytes as usize)?)).collect()
    }

    fn write(&self, piece: &Piece, step: &Step, planes: &[&[u8]]) -> Result<()> {
        let target = Arrays { sink: self.sink, extents: &piece.extents };
        let written = match (&piece.arrangement, packing(&piece.element)) {
            (Some(arrangement), Some(packing)) => {
                let _one_at_a_time = self.scatters.lock();
                let rows = step.first..step.first + step.rows;
                arrangement.scatter(&packing, &piece.output.shape, rows, planes, &target)
            }
            (_, packing) => {
                let (_, columns) = rows_and_columns(&piece.output.shape);
                let ranges = rows::ranges(&piece.element, columns, step.first, step.rows);
                let whole = |i: usize| packing.is_some_and(|p| p.scheme.planes()[i].whole);
                let all = planes.iter().zip(ranges).enumerate().filter(|(i, _)| step.first == 0 || !whole(*i));
                all.into_iter().try_for_each(|(i, (plane, (offset, _)))| target.write(i, offset, plane))
            }
        };
        written.map_err(|source| {
            let mut error = Error::io(self.journal.map_or(self.source.path(), Journal::target), source);
            error.resumable = true;
            error
        })
    }
}

/// Where blocks go: the parts of a target by number.
pub trait Sink: Sync {
    /// Fills `buffer` with what lies at `offset`.
    fn read(&self, part: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Puts `bytes` at `offset`.
    fn write(&self, part: usize, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl Sink for Vec<File> {
    fn read(&self, part: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        windlass_formats::files::read_exact_at(&self[part], buffer, offset)
    }

    fn write(&self, part: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        super::output::write_all_at(&self[part], bytes, offset)
    }
}

/// The extents of one output in the target.
struct Arrays<'a> {
    sink: &'a dyn Sink,
    extents: &'a [Extent],
}

impl Stored for Arrays<'_> {
    fn read(&self, array: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let extent = self.extents[array];
        self.sink.read(extent.part, extent.offset + offset, buffer)
    }

    fn write(&self, array: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let extent = self.extents[array];
        self.sink.write(extent.part, extent.offset + offset, bytes)
    }
}

impl pipeline::Work for Blocks<'_> {
    type Error = Error;

    fn steps(&self) -> usize {
        self.steps.len()
    }

    fn bytes(&self, index: usize) -> u64 {
        let step = &self.steps[index];
        let piece = &self.pieces[step.piece];
        let (_, columns) = rows_and_columns(&piece.output.shape);
        rows::ranges(&piece.element, columns, step.first, step.rows).iter().map(|(_, bytes)| bytes).sum()
    }

    fn about(&self, index: usize) -> (Name, String) {
        let piece = &self.pieces[self.steps[index].piece];
        (piece.element.name().to_lowercase().into(), piece.output.name.clone())
    }

    fn prefetch(&self, index: usize) {
        let step = &self.steps[index];
        let Content::Rows(segments) = &self.pieces[step.piece].output.content else { return };
        let Some(segment) = segments.iter().find(|s| s.first + s.rows > step.first) else { return };
        let entry = &self.source.tensors()[segment.entry];
        let part = |extent: &Extent| self.source.parts()[extent.part].file();
        if entry.arrangement().is_some() {
            if step.first == segment.first {
                entry.planes().iter().for_each(|e| system::will_read(part(e), e.offset, e.length));
            }
            return;
        }
        let (rows, columns) = rows_and_columns(entry.shape());
        let granule = entry.row_granularity(columns);
        let first = segment.source_row(step.first.max(segment.first)) / granule * granule;
        let ranges = rows::ranges(entry.element(), columns, first, step.rows.min(rows - first));
        for (extent, (offset, bytes)) in entry.planes().iter().zip(ranges) {
            system::will_read(part(extent), extent.offset + offset, bytes);
        }
    }

    fn step(&self, index: usize) -> Result<()> {
        if let Some(errors) = self.journal.and_then(|journal| journal.done(index)) {
            for (slot, bits) in self.errors[index].iter().zip(errors) {
                slot.store(bits, Ordering::Relaxed);
            }
            return Ok(());
        }
        self.make(index)?;
        let errors = [0, 1].map(|i| self.errors[index][i].load(Ordering::Relaxed));
        self.journal.map_or(Ok(()), |journal| journal.record(index, errors))
    }
}

fn encode(
    element: &Element,
    float: DType,
    values: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    planes: &mut [&mut [u8]],
) -> Result<()> {
    match (element, packing(element)) {
        (Element::Plain(dtype), _) => Ok(float::from_f32(*dtype, values, planes[0])?),
        (_, Some(p)) => {
            let float = if p.scheme.planes().iter().any(|p| p.element == PlaneType::Float) { p.float } else { float };
            Ok(p.scheme.encode(values, columns, importance, float, planes)?)
        }
        _ => Err(Error::new(Code::Usage, format!("{} cannot be encoded", element.name()))),
    }
}

/// The float type that values of this element had before they became `f32`.
fn float_of(element: &Element) -> DType {
    match (element, packing(element)) {
        (Element::Plain(dtype), _) => *dtype,
        (_, Some(p)) => p.float,
        _ => DType::F32,
    }
}

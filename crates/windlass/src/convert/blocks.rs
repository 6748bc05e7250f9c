//! The work of a conversion: blocks of rows, each read, transformed and written on its own.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_formats::{Entry, Extent, Problem, Source};
use windlass_quant::repack;
use windlass_quant::{Packing, PlaneType, float, measure};
use windlass_runtime::memory::{Buffer, Pool};
use windlass_runtime::{pipeline, system};
use windlass_tensor::{DType, Element};

use super::journal::Journal;
use super::names::{Content, Output, Segment, rows_and_columns};
use crate::{Code, Error, Result};

/// Values in one block: 1 MiB as `f32`, so that a block in all its forms stays in a core's second-level cache.
const BLOCK_VALUES: usize = 256 << 10;

/// One output with everything that is needed to make it.
pub struct Piece {
    pub output: Output,
    pub element: Element,
    pub extents: Vec<Extent>,
    /// Importance of each column, for each expert one after the other.
    pub importance: Option<Vec<f32>>,
    pub measure: bool,
}

/// All blocks of a conversion.
pub struct Blocks<'a> {
    source: &'a Source,
    pieces: &'a [Piece],
    files: &'a [File],
    pool: &'a Pool,
    journal: &'a Journal,
    steps: Vec<Step>,
    /// For each step, squared error and squared values as bits of `f64`: added up in order, whatever the threads.
    errors: Vec<[AtomicU64; 2]>,
    repacked: Vec<AtomicU64>,
    requantized: Vec<AtomicU64>,
}

struct Step {
    piece: usize,
    first: usize,
    rows: usize,
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
        files: &'a [File],
        pool: &'a Pool,
        journal: &'a Journal,
    ) -> Self {
        let steps = cut(pieces);
        let errors = steps.iter().map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        let counters = || pieces.iter().map(|_| AtomicU64::new(0)).collect();
        Self { source, pieces, files, pool, journal, steps, errors, repacked: counters(), requantized: counters() }
    }

    /// Number of steps for these pieces.
    pub fn count(pieces: &[Piece]) -> usize {
        cut(pieces).len()
    }

    /// Most bytes that one step needs at a time.
    pub fn memory_per_step(source: &Source, pieces: &[Piece]) -> u64 {
        let need = |p: &Piece| {
            let (rows, columns) = rows_and_columns(&p.output.shape);
            let rows = (BLOCK_VALUES / columns.max(1)).clamp(1, rows.max(1));
            let values = (rows * columns) as u64;
            let widest = match &p.output.content {
                Content::Rows(segments) => segments
                    .iter()
                    .map(|s| &source.tensors()[s.entry])
                    .map(|e| e.bytes().div_ceil(e.values().max(1)))
                    .max(),
                Content::Values(_) => None,
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
                let mut out = self.output_buffers(piece, step)?;
                let mut slices: Vec<&mut [u8]> = out.iter_mut().map(|b| &mut **b).collect();
                let values = &values[step.first..step.first + step.rows];
                encode(&piece.element, DType::F32, values, 1, None, &mut slices)?;
                self.write(piece, step, 0, &out[0])
            }
            Content::Rows(segments) => {
                let end = step.first + step.rows;
                for segment in segments.iter().filter(|s| s.first < end && s.first + s.rows > step.first) {
                    let first = step.first.max(segment.first);
                    let rows = end.min(segment.first + segment.rows) - first;
                    let part = Step { piece: step.piece, first, rows };
                    self.make_rows(index, piece, segment, &part)?;
                }
                Ok(())
            }
        }
    }

    fn make_rows(&self, index: usize, piece: &Piece, segment: &Segment, step: &Step) -> Result<()> {
        let entry = &self.source.tensors()[segment.entry];
        let planes = self.read(entry, segment, step)?;
        let same = *entry.element() == piece.element && segment.shift == 0.0;
        if same && same_float(entry.element(), &piece.element) {
            return planes.iter().enumerate().try_for_each(|(i, plane)| self.write(piece, step, i, plane));
        }
        if self.repack(piece, entry, step, &planes)? {
            self.repacked[step.piece].fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.transform(index, piece, segment, step, entry, &planes)
    }

    /// Reads the rows that `step` needs, in the order in which the output has them, one buffer for each plane.
    fn read(&self, entry: &Entry, segment: &Segment, step: &Step) -> Result<Vec<Buffer>> {
        let (_, columns) = rows_and_columns(entry.shape());
        let row_bytes = row_bytes(entry.element(), columns);
        let mut planes = Vec::with_capacity(row_bytes.len());
        for (plane, bytes) in row_bytes.into_iter().enumerate() {
            let mut buffer = self.pool.take("a block of the source", bytes * step.rows)?;
            if segment.reorders() {
                self.read_reordered(entry, plane, segment, step, bytes, &mut buffer)?;
            } else {
                let offset = (segment.source_row(step.first) * bytes) as u64;
                self.source.read(entry, plane, offset, &mut buffer)?;
            }
            planes.push(buffer);
        }
        Ok(planes)
    }

    /// Reads the span of source rows at once where it is not much longer than what is needed, else row by row.
    fn read_reordered(
        &self,
        entry: &Entry,
        plane: usize,
        segment: &Segment,
        step: &Step,
        bytes: usize,
        buffer: &mut [u8],
    ) -> Result<()> {
        let rows = || (step.first..step.first + step.rows).map(|row| segment.source_row(row));
        let low = rows().min().unwrap_or(0);
        let high = rows().max().unwrap_or(0);
        let span = high - low + 1;
        if span > 2 * step.rows {
            for (row, out) in rows().zip(buffer.chunks_exact_mut(bytes)) {
                self.source.read(entry, plane, (row * bytes) as u64, out)?;
            }
            return Ok(());
        }
        let mut all = self.pool.take("rows to be reordered", span * bytes)?;
        self.source.read(entry, plane, (low * bytes) as u64, &mut all)?;
        for (row, out) in rows().zip(buffer.chunks_exact_mut(bytes)) {
            out.copy_from_slice(&all[(row - low) * bytes..][..bytes]);
        }
        Ok(())
    }

    fn repack(&self, piece: &Piece, entry: &Entry, step: &Step, planes: &[Buffer]) -> Result<bool> {
        let (Some(from), Some(to)) = (packing(entry.element()), packing(&piece.element)) else { return Ok(false) };
        let Some(repack) = repack(from, to) else { return Ok(false) };
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let mut out = self.output_buffers(piece, step)?;
        let planes: Vec<&[u8]> = planes.iter().map(|p| &**p).collect();
        let mut slices: Vec<&mut [u8]> = out.iter_mut().map(|b| &mut **b).collect();
        if !repack.rows(&planes, columns, &mut slices)? {
            return Ok(false);
        }
        out.iter().enumerate().try_for_each(|(i, plane)| self.write(piece, step, i, plane))?;
        Ok(true)
    }

    /// Through floats: decode, shift, check, encode, measure.
    fn transform(
        &self,
        index: usize,
        piece: &Piece,
        segment: &Segment,
        step: &Step,
        entry: &Entry,
        planes: &[Buffer],
    ) -> Result<()> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let count = step.rows * columns;
        let mut values = self.pool.take("a block of floats", count * 4)?;
        let values = values.as_f32_mut();
        let bytes: Vec<&[u8]> = planes.iter().map(|p| &**p).collect();
        decode(entry.element(), &bytes, columns, values)?;
        if segment.shift != 0.0 {
            values.iter_mut().for_each(|v| *v += segment.shift);
        }
        let mut out = self.output_buffers(piece, step)?;
        let mut slices: Vec<&mut [u8]> = out.iter_mut().map(|b| &mut **b).collect();
        let importance = piece.importance.as_ref().and_then(|all| {
            let from = step.first / rows_per_expert(&piece.output.shape) * columns;
            all.get(from..from + columns).or_else(|| all.get(..columns))
        });
        self.check_range(piece, entry, segment, step, values)?;
        encode(&piece.element, source_float(entry.element()), values, columns, importance, &mut slices)?;
        if packing(&piece.element).is_some() {
            self.requantized[step.piece].fetch_add(1, Ordering::Relaxed);
        }
        if piece.measure {
            let mut decoded = self.pool.take("a block of decoded floats", count * 4)?;
            let decoded = decoded.as_f32_mut();
            let bytes: Vec<&[u8]> = out.iter().map(|p| &**p).collect();
            decode(&piece.element, &bytes, columns, decoded)?;
            self.record_error(index, values, decoded);
        }
        out.iter().enumerate().try_for_each(|(i, plane)| self.write(piece, step, i, plane))
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

    /// Refuses values that the output's element cannot hold: not finite in a packing, too large for a small float.
    fn check_range(&self, piece: &Piece, entry: &Entry, segment: &Segment, step: &Step, values: &[f32]) -> Result<()> {
        let Some(largest) = largest_value(&piece.element) else { return Ok(()) };
        if measure::largest_magnitude(values) <= largest {
            return Ok(());
        }
        let at = values.iter().position(|v| v.is_nan() || v.abs() > largest).unwrap_or(0);
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let row = segment.source_row(step.first + at / columns.max(1));
        let bytes = row_bytes(entry.element(), rows_and_columns(entry.shape()).1).first().copied().unwrap_or(0);
        let name = piece.element.name();
        let message =
            format!("{name} cannot hold the value {} in row {row}, column {}", values[at], at % columns.max(1));
        let extent = entry.planes()[0];
        let problem =
            Problem::new("not-finite", message).tensor(entry.name()).offset(extent.offset + (row * bytes) as u64);
        let help = if values[at].is_finite() {
            "choose a type with a larger range, such as bf16"
        } else {
            "the weights are damaged: see what else is with `windlass verify --deep`, then download them again"
        };
        Err(Error::refused(self.source.parts()[extent.part].path(), problem).help(help))
    }

    fn output_buffers(&self, piece: &Piece, step: &Step) -> Result<Vec<Buffer>> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let sizes = row_bytes(&piece.element, columns);
        sizes.into_iter().map(|bytes| Ok(self.pool.take("a block of the output", bytes * step.rows)?)).collect()
    }

    fn write(&self, piece: &Piece, step: &Step, plane: usize, bytes: &[u8]) -> Result<()> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let row = row_bytes(&piece.element, columns)[plane];
        let extent = piece.extents[plane];
        let offset = extent.offset + (step.first * row) as u64;
        super::output::write_all_at(&self.files[extent.part], bytes, offset).map_err(|source| {
            let mut error = Error::io(self.journal.target(), source);
            error.resumable = true;
            error
        })
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
        (row_bytes(&piece.element, columns).iter().sum::<usize>() * step.rows) as u64
    }

    fn prefetch(&self, index: usize) {
        let step = &self.steps[index];
        let Content::Rows(segments) = &self.pieces[step.piece].output.content else { return };
        let Some(segment) = segments.iter().find(|s| s.first + s.rows > step.first) else { return };
        let entry = &self.source.tensors()[segment.entry];
        let (rows, columns) = rows_and_columns(entry.shape());
        let first = segment.source_row(step.first.max(segment.first));
        for (extent, bytes) in entry.planes().iter().zip(row_bytes(entry.element(), columns)) {
            let length = step.rows.min(rows - first) * bytes;
            let file = self.source.parts()[extent.part].file();
            system::will_read(file, extent.offset + (first * bytes) as u64, length as u64);
        }
    }

    fn step(&self, index: usize) -> Result<()> {
        if let Some(errors) = self.journal.done(index) {
            for (slot, bits) in self.errors[index].iter().zip(errors) {
                slot.store(bits, Ordering::Relaxed);
            }
            return Ok(());
        }
        self.make(index)?;
        let errors = [0, 1].map(|i| self.errors[index][i].load(Ordering::Relaxed));
        self.journal.record(index, errors)
    }
}

/// Blocks do not cross the border between two experts, because each has importance weights of its own.
fn rows_per_expert(shape: &[usize]) -> usize {
    let rows = rows_and_columns(shape).0;
    if shape.len() > 2 { (rows / shape[0].max(1)).max(1) } else { rows.max(1) }
}

fn cut(pieces: &[Piece]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (piece, p) in pieces.iter().enumerate() {
        let (rows, columns) = rows_and_columns(&p.output.shape);
        let per_expert = rows_per_expert(&p.output.shape);
        let at_once = (BLOCK_VALUES / columns.max(1)).clamp(1, per_expert);
        for expert in (0..if columns > 0 { rows } else { 0 }).step_by(per_expert) {
            let end = (expert + per_expert).min(rows);
            let firsts = (expert..end).step_by(at_once);
            steps.extend(firsts.map(|first| Step { piece, first, rows: at_once.min(end - first) }));
        }
    }
    steps
}

/// Bytes of one row in each plane. Shapes were checked when the source was opened and the target laid out.
pub fn row_bytes(element: &Element, columns: usize) -> Vec<usize> {
    match element {
        Element::Plain(dtype) => vec![columns * dtype.size()],
        Element::Packed(layout) => {
            layout.plane_bytes(&[1, columns]).unwrap_or_default().into_iter().map(|b| b as usize).collect()
        }
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
fn source_float(element: &Element) -> DType {
    match (element, packing(element)) {
        (Element::Plain(dtype), _) => *dtype,
        (_, Some(p)) => p.float,
        _ => DType::F32,
    }
}

fn same_float(a: &Element, b: &Element) -> bool {
    packing(a).map(|p| p.float) == packing(b).map(|p| p.float)
}

/// The largest magnitude that an element can hold where that is less than what a float may be.
fn largest_value(element: &Element) -> Option<f32> {
    match element {
        Element::Plain(DType::F16) => Some(65504.0),
        Element::Plain(DType::F8E4M3) => Some(448.0),
        Element::Plain(DType::F8E5M2) => Some(57344.0),
        Element::Plain(_) => None,
        Element::Packed(_) => Some(f32::MAX),
    }
}

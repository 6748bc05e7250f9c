//! The work of a conversion: blocks of rows, each read, transformed and written on its own.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use windlass_formats::{Extent, Source};
use windlass_quant::arrange::{ArrangementRef, Stored};
use windlass_quant::{Moved, PlaneType, float, measure, repack};
use windlass_runtime::memory::{Buffer, Pool};
use windlass_runtime::monitor::Name;
use windlass_runtime::{pipeline, system};
use windlass_tensor::{DType, Element};

use super::edit::Edit;
use super::journal::Journal;
use super::names::{Content, Output, Segment};
use super::origin::Origin;
use super::steps::{Step, cut, granularity, parts, rows_at_once, rows_per_expert};
use crate::rows::{self, packing, rows_and_columns, slices, slices_mut};
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
    /// Bytes that changing one of its blocks takes.
    pub edit_bytes: u64,
}

/// Sums of squares of a step: of the error, of the values, of what was changed.
pub const SUMS: usize = 3;
const ERROR: usize = 0;
const NORM: usize = 1;
const CHANGE: usize = 2;

/// All blocks of a conversion.
pub struct Blocks<'a> {
    pub(super) source: &'a Source,
    pub(super) pieces: &'a [Piece],
    sink: &'a dyn Sink,
    pub(super) pool: &'a Pool,
    /// What is done already, where that is kept.
    journal: Option<&'a Journal>,
    pub(super) steps: Vec<Step>,
    /// What is changed on the way, if something is.
    edit: Option<&'a dyn Edit>,
    /// For each step, sums of squares as bits of `f64`: added up in order, whatever the threads.
    sums: Vec<[AtomicU64; SUMS]>,
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
    /// Sums of squares: of the error and of the values, where that is measured, and of what was changed.
    pub squares: [f64; SUMS],
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
        let sums = steps.iter().map(|_| [const { AtomicU64::new(0) }; SUMS]).collect();
        let counters = || pieces.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            source,
            pieces,
            sink,
            pool,
            journal,
            steps,
            edit: None,
            sums,
            repacked: counters(),
            requantized: counters(),
            begun: pieces.iter().map(|_| OnceLock::new()).collect(),
            scatters: Mutex::new(()),
        }
    }

    /// The same, with something changed on the way.
    pub fn edited(self, edit: Option<&'a dyn Edit>) -> Self {
        Self { edit, ..self }
    }

    /// Lets what is changed look at whole tensors first.
    pub fn prepare(&self, options: &pipeline::Options) -> Result<()> {
        let Some(edit) = self.edit else { return Ok(()) };
        let done = |step: &usize| self.journal.is_some_and(|journal| journal.done(*step).is_some());
        let left = (0..self.steps.len()).filter(|step| !done(step)).any(|step| self.is_edited(&self.steps[step]));
        if left { edit.prepare(self, options) } else { Ok(()) }
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
            2 * values * (2 * widest.unwrap_or(4) + 4 + 4 + 4) + p.edit_bytes
        };
        pieces.iter().map(need).max().unwrap_or(0)
    }

    /// What happened to each piece; after all steps.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut sums = vec![[0.0; SUMS]; self.pieces.len()];
        for (step, own) in self.steps.iter().zip(&self.sums) {
            let own = own.iter().map(|slot| f64::from_bits(slot.load(Ordering::Relaxed)));
            sums[step.piece].iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        let outcome = |(i, [error, values, change]): (usize, [f64; SUMS])| Outcome {
            repacked: self.repacked[i].load(Ordering::Relaxed) > 0,
            requantized: self.requantized[i].load(Ordering::Relaxed) > 0,
            relative_error: self.pieces[i].measure.then(|| match error {
                0.0 => 0.0,
                _ if error.is_finite() && values > 0.0 => (error / values).sqrt(),
                _ => f64::INFINITY,
            }),
            squares: [error, values, change],
        };
        sums.into_iter().enumerate().map(outcome).collect()
    }

    fn make(&self, index: usize) -> Result<()> {
        let step = &self.steps[index];
        let piece = &self.pieces[step.piece];
        match &piece.output.content {
            Content::Bytes(_, bytes) => {
                let (offset, length) =
                    rows::ranges(&piece.element, rows_and_columns(&piece.output.shape).1, step.first, step.rows)[0];
                self.write(piece, step, &[&bytes[offset as usize..(offset + length) as usize]])
            }
            Content::Turned(_) | Content::Factor(_) | Content::Values(_) => {
                let (_, columns) = rows_and_columns(&piece.output.shape);
                let mut values = self.pool.take("a block of floats", step.rows * columns * 4)?;
                let change = self.values(step, values.as_f32_mut())?;
                self.add(index, CHANGE, change);
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
        if !self.is_edited(part) && self.carry(index, piece, segment, part)? {
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
        let Some(planes) = self.origin().planes(entry, segment, step)? else { return Ok(false) };
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

    /// Through floats: decode, shift, encode.
    fn requantize(&self, index: usize, piece: &Piece, step: &Step, parts: &[(&Segment, Step)]) -> Result<()> {
        let (_, columns) = rows_and_columns(&piece.output.shape);
        let mut values = self.pool.take("a block of floats", step.rows * columns * 4)?;
        let values = values.as_f32_mut();
        self.origin().floats(columns, step, parts, values)?;
        let change = self.change(step, values)?;
        self.add(index, CHANGE, change);
        self.encode(index, piece, step, values)
    }

    /// All values of `step` as they will be written, and by how much they were changed: a sum of squares.
    pub(super) fn values(&self, step: &Step, values: &mut [f32]) -> Result<f64> {
        self.origin().values(&self.pieces[step.piece].output, step, values)?;
        self.change(step, values)
    }

    /// All values of `step` as the source has them.
    pub fn plain_values(&self, step: &Step, values: &mut [f32]) -> Result<()> {
        self.origin().values(&self.pieces[step.piece].output, step, values)
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub fn pool(&self) -> &Pool {
        self.pool
    }

    /// Changes the values of `step` where something is to be changed.
    fn change(&self, step: &Step, values: &mut [f32]) -> Result<f64> {
        match self.edit.filter(|_| self.is_edited(step)) {
            Some(edit) => edit.apply(step, values, self.pool),
            None => Ok(0.0),
        }
    }

    fn is_edited(&self, step: &Step) -> bool {
        self.edit.is_some_and(|edit| edit.touches(step))
    }

    fn origin(&self) -> Origin<'_> {
        Origin { source: self.source, pool: self.pool }
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

    fn record_error(&self, index: usize, values: &[f32], decoded: &[f32]) {
        let (error, norm) = measure::squared_error(values, decoded);
        self.add(index, ERROR, error);
        self.add(index, NORM, norm);
    }

    fn add(&self, index: usize, which: usize, sum: f64) {
        // A step is made by one worker, so reading and writing back is not a race.
        let slot = &self.sums[index][which];
        let before = f64::from_bits(slot.load(Ordering::Relaxed));
        let sum = if sum.is_finite() { before + sum } else { f64::INFINITY };
        slot.store(sum.to_bits(), Ordering::Relaxed);
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
        if let Some(sums) = self.journal.and_then(|journal| journal.done(index)) {
            for (slot, bits) in self.sums[index].iter().zip(sums) {
                slot.store(bits, Ordering::Relaxed);
            }
            return Ok(());
        }
        self.make(index)?;
        let sums = self.sums[index].each_ref().map(|slot| slot.load(Ordering::Relaxed));
        self.journal.map_or(Ok(()), |journal| journal.record(index, sums))
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

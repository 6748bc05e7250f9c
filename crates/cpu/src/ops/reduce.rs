//! Reductions over neighbouring dimensions: along rows, or across them.

use windlass_ops::library::dims;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use super::norm::sum;
use super::softmax::largest;
use crate::isa::{self, Level, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const SUM: Kernel = Kernel { op: "sum", supports, run: |args| reduce(args, How::Sum) };
pub(super) const MEAN: Kernel = Kernel { op: "mean", supports, run: |args| reduce(args, How::Mean) };
pub(super) const MAX: Kernel = Kernel { op: "max", supports, run: |args| reduce(args, How::Max) };
pub(super) const MIN: Kernel = Kernel { op: "min", supports, run: |args| reduce(args, How::Min) };

/// Values that one thread takes at a time.
const GRAIN: usize = 32 << 10;

/// Columns that are worked on together.
const COLUMNS: usize = 256;

/// Values of a row that are added up by themselves, so that errors do not grow with its length.
const PIECE: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Sum,
    Mean,
    Max,
    Min,
}

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let (x, one) = (q.inputs[0], "takes F32 and dimensions that stand side by side");
    let dims = dims(q, x.shape().rank()).map_err(|_| one)?;
    let together = dims.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let some = x.shape().values() > 0 && !dims.is_empty();
    if x.element().dtype() == Some(DType::F32) && together && some { Ok(()) } else { Err(one) }
}

fn reduce(args: &mut Args, how: How) -> Result<(), Error> {
    let (x, session) = (args.f32s(0)?, args.session);
    let shape = args.inputs[0].shape().to_vec();
    let dims = dims(&args.inquiry(), shape.len())?;
    let (Some(first), Some(last)) = (dims.first(), dims.last()) else { return Ok(()) };
    let length: usize = shape[*first..=*last].iter().product();
    let inner: usize = shape[last + 1..].iter().product();
    let (level, y) = (level(), Span::of(args.output(0)?));
    if inner == 1 {
        session.split(x.len() / length, GRAIN.div_ceil(length), &|rows| {
            // SAFETY: ranges of rows are disjoint.
            let y = unsafe { y.part(rows.clone()) };
            let work = Rows { x: &x[rows.start * length..rows.end * length], y, length, how };
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, work) }
        });
        return Ok(());
    }
    let blocks = inner.div_ceil(COLUMNS);
    session.split(x.len() / length / inner * blocks, GRAIN.div_ceil(length * COLUMNS.min(inner)), &|items| {
        for item in items {
            let (slice, from) = (item / blocks, item % blocks * COLUMNS);
            let count = COLUMNS.min(inner - from);
            // SAFETY: blocks of columns are disjoint.
            let y = unsafe { y.part(slice * inner + from..slice * inner + from + count) };
            across(level, &x[slice * length * inner + from..], inner, length, y, how);
        }
    });
    Ok(())
}

/// Reduces `length` rows, `stride` values apart, to the row `y`.
fn across(level: Level, x: &[f32], stride: usize, length: usize, y: &mut [f32], how: How) {
    // SAFETY: the level is this machine's; the kernel asks for nothing else.
    unsafe { dispatch(level, Columns { x, stride, length, y, how }) }
}

struct Rows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    length: usize,
    how: How,
}

impl isa::Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (row, y) in self.x.chunks_exact(self.length).zip(self.y) {
            *y = match self.how {
                How::Sum => total(row) as f32,
                How::Mean => (total(row) / row.len() as f64) as f32,
                How::Max => extreme(row, 1.0),
                How::Min => extreme(row, -1.0),
            };
        }
    }
}

#[inline(always)]
fn total(row: &[f32]) -> f64 {
    let mut all = 0.0;
    for piece in row.chunks(PIECE) {
        all += f64::from(sum(piece, |v| v));
    }
    all
}

/// The largest value times `sign`; not a number if one of them is.
#[inline(always)]
fn extreme(row: &[f32], sign: f32) -> f32 {
    let mut bad = 0u32;
    for v in row {
        bad |= u32::from(v.is_nan());
    }
    if bad != 0 {
        return f32::NAN;
    }
    if sign > 0.0 {
        return largest(row);
    }
    let (lines, rest) = row.as_chunks::<16>();
    let mut low = [f32::INFINITY; 16];
    for line in lines {
        for i in 0..16 {
            low[i] = if line[i] < low[i] { line[i] } else { low[i] };
        }
    }
    rest.iter().chain(&low).fold(f32::INFINITY, |a, b| if *b < a { *b } else { a })
}

struct Columns<'a> {
    x: &'a [f32],
    stride: usize,
    length: usize,
    y: &'a mut [f32],
    how: How,
}

impl isa::Kernel for Columns<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Columns { x, stride, length, y, how } = self;
        let count = y.len();
        if matches!(how, How::Max | How::Min) {
            y.copy_from_slice(&x[..count]);
            for row in 1..length {
                for (y, v) in y.iter_mut().zip(&x[row * stride..][..count]) {
                    let better = if how == How::Max { *v > *y } else { *v < *y };
                    *y = if (better || v.is_nan()) && !y.is_nan() { *v } else { *y };
                }
            }
            return;
        }
        // Partial sums of a few rows in single precision, the sum of those in double.
        let mut all = [0.0f64; COLUMNS];
        for first in (0..length).step_by(16) {
            let mut part = [0.0f32; COLUMNS];
            for row in first..length.min(first + 16) {
                for (part, v) in part.iter_mut().zip(&x[row * stride..][..count]) {
                    *part += v;
                }
            }
            for (all, part) in all.iter_mut().zip(&part) {
                *all += f64::from(*part);
            }
        }
        let share = if how == How::Mean { 1.0 / length as f64 } else { 1.0 };
        for (y, all) in y.iter_mut().zip(&all) {
            *y = (all * share) as f32;
        }
    }
}

//! Order along the last dimension, and sums up to each place.
//!
//! A value and its place make one number whose order is that of the values, then of the places: equal values keep their
//! order, whatever sorts them.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use super::failed;
use crate::span::Span;

pub(super) const SORT: Kernel = Kernel { op: "sort", supports, run: |args| order(args, "descending", Some(0), 1) };
pub(super) const ARGSORT: Kernel = Kernel { op: "argsort", supports, run: |args| order(args, "descending", None, 0) };
pub(super) const TOPK: Kernel = Kernel { op: "topk", supports, run: |args| order(args, "largest", Some(0), 1) };
pub(super) const ARGMAX: Kernel = Kernel { op: "argmax", supports: rows, run: argmax };
pub(super) const CUMSUM: Kernel = Kernel { op: "cumsum", supports, run: cumsum };

/// Values that one thread takes at a time.
const GRAIN: usize = 8 << 10;

fn rows(q: &Inquiry) -> Result<(), &'static str> {
    let x = q.inputs[0];
    let some = x.shape().values() > 0 && x.shape().columns() <= u32::MAX as usize;
    if x.element().dtype() == Some(DType::F32) && some { Ok(()) } else { Err("takes F32") }
}

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let last = q.inputs[0].shape().rank() as i64 - 1;
    match q.signed("dim") {
        Ok(dim) if dim == -1 || dim == last => rows(q),
        _ => Err("works along the last dimension"),
    }
}

/// A number whose order is that of floats; zeros of both signs are equal, and what is not a number is the largest.
fn key(value: f32) -> u32 {
    let bits = match value.to_bits() {
        _ if value.is_nan() => 0x7fff_ffff,
        0x8000_0000 => 0,
        bits => bits,
    };
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn order(args: &mut Args, falling: &str, values: Option<usize>, places: usize) -> Result<(), Error> {
    let (x, q, session) = (args.f32s(0)?, args.inquiry(), args.session);
    let (columns, falling) = (args.inputs[0].shape().columns(), q.bool(falling)?);
    let keep = if args.op.name == "topk" { q.int("k")? } else { columns };
    if keep == 0 {
        return Ok(());
    }
    let op = args.op.name;
    let mut firsts = args.outputs.iter_mut();
    let sorted = values.and_then(|_| firsts.next());
    let sorted =
        sorted.map(|tensor| tensor.bytes_mut().ok_or_else(|| failed(op, "an output is shared"))).transpose()?;
    let sorted = sorted.map(Span::of);
    let from = firsts.next().and_then(|tensor| tensor.bytes_mut());
    let from = Span::of(from.ok_or_else(|| failed(op, format!("output {places} is shared")))?);
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        let mut all: Vec<u64> = Vec::with_capacity(columns);
        for row in rows {
            let x = &x[row * columns..(row + 1) * columns];
            let flip = if falling { u32::MAX } else { 0 };
            all.clear();
            all.extend(x.iter().zip(0u64..).map(|(v, at)| u64::from(key(*v) ^ flip) << 32 | at));
            if keep < columns {
                all.select_nth_unstable(keep - 1);
            }
            all[..keep].sort_unstable();
            // SAFETY: every row has outputs of its own.
            let places = unsafe { from.part(row * keep * 8..(row + 1) * keep * 8) };
            for (out, key) in places.as_chunks_mut::<8>().0.iter_mut().zip(&all) {
                *out = (key & u64::from(u32::MAX)).to_le_bytes();
            }
            if let Some(sorted) = &sorted {
                // SAFETY: as above.
                let values = unsafe { sorted.part(row * keep * 4..(row + 1) * keep * 4) };
                for (out, key) in values.as_chunks_mut::<4>().0.iter_mut().zip(&all) {
                    *out = x[(key & u64::from(u32::MAX)) as usize].to_le_bytes();
                }
            }
        }
    });
    Ok(())
}

fn argmax(args: &mut Args) -> Result<(), Error> {
    let (x, columns, session, op) = (args.f32s(0)?, args.inputs[0].shape().columns(), args.session, args.op.name);
    let out = Span::of(args.outputs[0].bytes_mut().ok_or_else(|| failed(op, "the output is shared"))?);
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        for row in rows {
            let x = &x[row * columns..(row + 1) * columns];
            let mut best = 0;
            // The largest of a block first, where it stands only if it is better.
            for (block, values) in x.chunks(256).enumerate() {
                let max = super::softmax::largest(values);
                if max > x[best] {
                    best = block * 256 + values.iter().position(|v| *v == max).unwrap_or(0);
                }
            }
            // SAFETY: every row has a place of its own.
            let place = unsafe { out.part(row * 8..row * 8 + 8) };
            place.copy_from_slice(&(best as i64).to_le_bytes());
        }
    });
    Ok(())
}

fn cumsum(args: &mut Args) -> Result<(), Error> {
    let (x, columns, session) = (args.f32s(0)?, args.inputs[0].shape().columns(), args.session);
    let y = Span::of(args.output(0)?);
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        for row in rows {
            // SAFETY: rows are disjoint.
            let y = unsafe { y.part(row * columns..(row + 1) * columns) };
            let mut sum = 0.0f64;
            for (y, x) in y.iter_mut().zip(&x[row * columns..]) {
                sum += f64::from(*x);
                *y = sum as f32;
            }
        }
    });
    Ok(())
}

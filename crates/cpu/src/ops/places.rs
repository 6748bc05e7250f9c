//! Reading and writing at places that tensors of whole numbers give, joining and cutting: slices of bytes that move.

use windlass_ops::library::Axis;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Tensor};

use super::failed;
use crate::span::Span;

pub(super) const INDEX_SELECT: Kernel = Kernel { op: "index_select", supports: whole, run: index_select };
pub(super) const GATHER: Kernel = Kernel { op: "gather", supports: same_outside, run: gather };
pub(super) const SCATTER_ADD: Kernel = Kernel { op: "scatter_add", supports: adds_same, run: scatter_add };
pub(super) const INDEX_ADD: Kernel = Kernel { op: "index_add", supports: adds, run: index_add };
pub(super) const CAT: Kernel = Kernel { op: "cat", supports: whole, run: cat };
pub(super) const SPLIT: Kernel = Kernel { op: "split", supports: whole, run: split };

/// Bytes that one thread takes at a time.
const GRAIN: usize = 64 << 10;

fn whole(q: &Inquiry) -> Result<(), &'static str> {
    let plain = |t: &&Tensor| t.element().dtype().is_some() && t.shape().values() > 0;
    if q.inputs.iter().all(plain) { Ok(()) } else { Err("takes plain values, and some of them") }
}

/// Whether the index has the shape of x but along the dimension.
fn same_outside(q: &Inquiry) -> Result<(), &'static str> {
    whole(q)?;
    let (x, index) = (q.inputs[0].shape(), q.inputs[1].shape());
    let dim = q.signed("dim").unwrap_or(0).rem_euclid(x.rank().max(1) as i64) as usize;
    let same = x.iter().zip(index.iter()).enumerate().all(|(i, (x, index))| i == dim || x == index);
    if same { Ok(()) } else { Err("takes an index as large as x along other dimensions") }
}

fn adds(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = |i: usize| q.inputs[i].element().dtype() == Some(DType::F32);
    if f32(0) && f32(2) { whole(q) } else { Err("takes F32") }
}

fn adds_same(q: &Inquiry) -> Result<(), &'static str> {
    adds(q)?;
    same_outside(q)
}

/// A tensor without gaps.
fn solid(tensor: &Tensor) -> Result<Tensor, Error> {
    Ok(tensor.contiguous()?)
}

fn bytes<'a>(op: &'static str, tensor: &'a Tensor) -> Result<&'a [u8], Error> {
    tensor.bytes().ok_or_else(|| failed(op, "an input is not in host memory"))
}

fn size(tensor: &Tensor) -> usize {
    tensor.element().dtype().map_or(1, |dtype| dtype.size())
}

fn axis(args: &Args, index: usize) -> Result<Axis, Error> {
    let q = args.inquiry();
    Axis::of(&q, q.shape(index)?, "dim")
}

/// The places of input 1, all below `bound`.
fn places(args: &Args, bound: usize) -> Result<Vec<usize>, Error> {
    let all = args.ints(1)?;
    let place = |i: i64| usize::try_from(i).ok().filter(|i| *i < bound);
    match all.iter().find(|i| place(**i).is_none()) {
        Some(wrong) => args.inquiry().fail(format!("{wrong} is not a place among {bound}")),
        None => Ok(all.into_iter().filter_map(place).collect()),
    }
}

fn output(op: &'static str, tensor: &mut Tensor) -> Result<Span<u8>, Error> {
    Ok(Span::of(tensor.bytes_mut().ok_or_else(|| failed(op, "the output is shared"))?))
}

fn index_select(args: &mut Args) -> Result<(), Error> {
    let (axis, op, session) = (axis(args, 0)?, args.op.name, args.session);
    let places = places(args, axis.length)?;
    let x = solid(args.inputs[0])?;
    let (x, part) = (bytes(op, &x)?, axis.inner * size(args.inputs[0]));
    let y = output(op, &mut args.outputs[0])?;
    session.split(axis.outer * places.len(), GRAIN.div_ceil(part), &|items| {
        for item in items {
            let from = (item / places.len() * axis.length + places[item % places.len()]) * part;
            // SAFETY: every item has a part of its own.
            unsafe { y.part(item * part..(item + 1) * part) }.copy_from_slice(&x[from..from + part]);
        }
    });
    Ok(())
}

fn gather(args: &mut Args) -> Result<(), Error> {
    let (from, to) = (axis(args, 0)?, axis(args, 1)?);
    let (op, session, size) = (args.op.name, args.session, size(args.inputs[0]));
    let places = places(args, from.length)?;
    let x = solid(args.inputs[0])?;
    let x = bytes(op, &x)?;
    let y = output(op, &mut args.outputs[0])?;
    session.split(places.len(), GRAIN / 8, &|items| {
        // SAFETY: ranges are disjoint.
        let y = unsafe { y.part(items.start * size..items.end * size) };
        for (out, item) in y.chunks_exact_mut(size).zip(items) {
            let (outer, inner) = (item / to.inner / to.length, item % to.inner);
            let at = ((outer * from.length + places[item]) * from.inner + inner) * size;
            out.copy_from_slice(&x[at..at + size]);
        }
    });
    Ok(())
}

fn scatter_add(args: &mut Args) -> Result<(), Error> {
    let (to, from, session) = (axis(args, 0)?, axis(args, 1)?, args.session);
    let places = places(args, to.length)?;
    let (x, y) = (args.f32s(0)?, args.f32s(2)?);
    let out = args.output(0)?;
    out.copy_from_slice(&x);
    let out = Span::of(out);
    // Slices along the dimension do not touch each other; within one, values are added in their order.
    session.split(to.outer * to.inner, (GRAIN / 8).div_ceil(from.length.max(1)), &|items| {
        for item in items {
            let (outer, inner) = (item / to.inner, item % to.inner);
            for i in 0..from.length {
                let at = (outer * from.length + i) * from.inner + inner;
                // SAFETY: the place lies in the slice of this item alone.
                unsafe { *out.at((outer * to.length + places[at]) * to.inner + inner) += y[at] };
            }
        }
    });
    Ok(())
}

fn index_add(args: &mut Args) -> Result<(), Error> {
    let (to, session, alpha) = (axis(args, 0)?, args.session, args.inquiry().float("alpha")? as f32);
    let places = places(args, to.length)?;
    let (x, y) = (args.f32s(0)?, args.f32s(2)?);
    let out = args.output(0)?;
    out.copy_from_slice(&x);
    let out = Span::of(out);
    // Every thread takes some columns of all slices, so that sums are made in one order.
    const COLUMNS: usize = 512;
    let blocks = to.inner.div_ceil(COLUMNS);
    session.split(to.outer * blocks, 1, &|items| {
        for item in items {
            let (outer, first) = (item / blocks, item % blocks * COLUMNS);
            let count = COLUMNS.min(to.inner - first);
            for (i, place) in places.iter().enumerate() {
                let at = (outer * to.length + place) * to.inner + first;
                // SAFETY: the columns of the slice belong to this item.
                let out = unsafe { out.part(at..at + count) };
                let y = &y[(outer * places.len() + i) * to.inner + first..][..count];
                out.iter_mut().zip(y).for_each(|(out, y)| *out += alpha * y);
            }
        }
    });
    Ok(())
}

fn cat(args: &mut Args) -> Result<(), Error> {
    let (op, session, inputs) = (args.op.name, args.session, args.inputs);
    let axes = (0..inputs.len()).map(|i| axis(args, i)).collect::<Result<Vec<_>, Error>>()?;
    let solids = inputs.iter().map(|x| solid(x)).collect::<Result<Vec<_>, Error>>()?;
    let parts = solids.iter().map(|x| bytes(op, x)).collect::<Result<Vec<_>, Error>>()?;
    let sizes: Vec<usize> = axes.iter().map(|a| a.length * a.inner * size(inputs[0])).collect();
    let row: usize = sizes.iter().sum();
    let outer = axes.first().map_or(0, |a| a.outer);
    let y = output(op, &mut args.outputs[0])?;
    session.split(outer, GRAIN.div_ceil(row.max(1)), &|items| {
        for item in items {
            let mut at = item * row;
            for (part, size) in parts.iter().zip(&sizes) {
                // SAFETY: every item has a row of its own.
                unsafe { y.part(at..at + size) }.copy_from_slice(&part[item * size..(item + 1) * size]);
                at += size;
            }
        }
    });
    Ok(())
}

fn split(args: &mut Args) -> Result<(), Error> {
    let (op, axis) = (args.op.name, axis(args, 0)?);
    let sizes: Vec<usize> = args.inquiry().ints("sizes")?.iter().map(|size| *size as usize).collect();
    let x = solid(args.inputs[0])?;
    let (x, one) = (bytes(op, &x)?, axis.inner * size(args.inputs[0]));
    let mut before = 0;
    for (output, length) in args.outputs.iter_mut().zip(sizes) {
        let y = output.bytes_mut().ok_or_else(|| failed(op, "an output is shared"))?;
        for (outer, out) in y.chunks_exact_mut((length * one).max(1)).enumerate() {
            let from = (outer * axis.length + before) * one;
            out.copy_from_slice(&x[from..from + out.len()]);
        }
        before += length;
    }
    Ok(())
}

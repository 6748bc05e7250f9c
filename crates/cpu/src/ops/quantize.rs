//! Packing rows, and unpacking them: the encoders and decoders of the schemes, on all threads.

use std::sync::Mutex;

use windlass_ops::library::{encoded_from, packing_of};
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_quant::Packing;
use windlass_tensor::{DType, PackedLayout};

use super::failed;
use crate::span::Span;

pub(super) const QUANTIZE: Kernel = Kernel { op: "quantize", supports: rows_alone, run: quantize };
pub(super) const CAST: Kernel = Kernel { op: "cast", supports: unpacks, run: unpack };

/// Values that one thread takes at a time.
const GRAIN: usize = 16 << 10;

fn rows_alone(q: &Inquiry) -> Result<(), &'static str> {
    let scheme = q.text("to").ok().and_then(|name| windlass_quant::scheme(name).ok());
    let cut =
        scheme.is_some_and(|s| each_row(&Packing { scheme: s, float: DType::F32 }, q.inputs[0].shape().columns()));
    if cut { Ok(()) } else { Err("rows of the scheme are packed together") }
}

fn unpacks(q: &Inquiry) -> Result<(), &'static str> {
    let x = q.inputs[0];
    let cut = packing_of(x).is_some_and(|p| each_row(&p, x.shape().columns()));
    if cut && q.text("to").is_ok_and(|to| to == "F32") && x.layout().is_contiguous() {
        Ok(())
    } else {
        Err("unpacks rows without gaps into F32")
    }
}

/// Whether every row can be packed without the others.
fn each_row(packing: &Packing, columns: usize) -> bool {
    let whole = packing.scheme.planes().iter().any(|plane| plane.whole);
    packing.scheme.row_granularity(columns) == 1 && !whole && !packing.scheme.tallies()
}

fn quantize(args: &mut Args) -> Result<(), Error> {
    let (x, op, session) = (args.f32s(0)?, args.op.name, args.session);
    let columns = args.inputs[0].shape().columns().max(1);
    let from = args.inputs[0].element().dtype().unwrap_or(DType::F32);
    let packing = packing_of(&args.outputs[0]).ok_or_else(|| failed(op, "the output is not packed"))?;
    let planes = args.outputs[0].planes_mut().ok_or_else(|| failed(op, "the output is shared"))?;
    let planes: Vec<Span<u8>> = planes.into_iter().map(Span::of).collect();
    let (from, failure) = (encoded_from(packing, from), Mutex::new(None));
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        let pack = || -> Result<(), String> {
            let ranges = packing.plane_ranges(columns, rows.start, rows.len())?;
            let mut parts: Vec<&mut [u8]> = Vec::with_capacity(planes.len());
            for (plane, (start, length)) in planes.iter().zip(ranges) {
                // SAFETY: ranges of rows have disjoint bytes in every plane.
                parts.push(unsafe { plane.part(start as usize..(start + length) as usize) });
            }
            let values = &x[rows.start * columns..rows.end * columns];
            packing.scheme.encode(values, columns, None, from, &mut parts).map_err(|e| e.to_string())
        };
        if let Err(message) = pack() {
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(message);
        }
    });
    outcome(op, failure)
}

fn unpack(args: &mut Args) -> Result<(), Error> {
    let (x, op, session) = (args.inputs[0], args.op.name, args.session);
    let columns = x.shape().columns().max(1);
    let packing = packing_of(x).ok_or_else(|| failed(op, "the input is not packed"))?;
    let planes = x.cut_planes()?;
    let planes: Option<Vec<&[u8]>> = planes.iter().map(|plane| plane.bytes()).collect();
    let planes = planes.ok_or_else(|| failed(op, "the input is not in host memory"))?;
    let failure = Mutex::new(None);
    let y = Span::of(args.output(0)?);
    session.split(x.shape().values() / columns, GRAIN.div_ceil(columns), &|rows| {
        let decode = || -> Result<(), String> {
            let ranges = packing.plane_ranges(columns, rows.start, rows.len())?;
            let mut parts: Vec<&[u8]> = Vec::with_capacity(planes.len());
            for (plane, (start, length)) in planes.iter().zip(ranges) {
                let part = plane.get(start as usize..(start + length) as usize);
                parts.push(part.ok_or("a plane is too short")?);
            }
            // SAFETY: ranges of rows are disjoint.
            let out = unsafe { y.part(rows.start * columns..rows.end * columns) };
            packing.scheme.decode(&parts, columns, packing.float, out).map_err(|e| e.to_string())
        };
        if let Err(message) = decode() {
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(message);
        }
    });
    outcome(op, failure)
}

fn outcome(op: &'static str, failure: Mutex<Option<String>>) -> Result<(), Error> {
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(message) => Err(failed(op, message)),
        None => Ok(()),
    }
}

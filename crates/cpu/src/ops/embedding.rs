//! Rows of a table.

use windlass_ops::library::bags;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_quant::{Packing, float};
use windlass_tensor::Element;

use super::failed;
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "embedding", supports, run };
pub(super) const BAG: Kernel = Kernel { op: "embedding_bag", supports, run: bag };

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let table = q.inputs[0];
    if let Element::Packed(layout) = table.element()
        && let Some(packing) = layout.as_any().downcast_ref::<Packing>()
        && packing.scheme.row_granularity(table.shape().columns()) > 1
    {
        return Err("rows of this scheme cannot be read one by one");
    }
    if table.layout().is_contiguous() { Ok(()) } else { Err("the table has gaps") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (table, ids, op) = (args.inputs[0], args.ints(1)?, args.op.name);
    let (rows, columns) = (table.shape().rows(), table.shape().columns());
    if let Some(wrong) = ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < rows)) {
        return args.inquiry().fail(format!("{wrong} is not one of the {rows} rows of the table"));
    }
    let session = args.session;
    let y = Span::of(args.output(0)?);
    let failure = std::sync::Mutex::new(None);
    session.split(ids.len(), 16, &|range| {
        for i in range {
            // SAFETY: rows of the output are disjoint.
            let out = unsafe { y.part(i * columns..(i + 1) * columns) };
            if let Err(error) = row(table, ids[i] as usize, out) {
                *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
            }
        }
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(message) => Err(failed(op, message)),
        None => Ok(()),
    }
}

/// The sum, mean or maximum of the rows of each bag.
fn bag(args: &mut Args) -> Result<(), Error> {
    let (table, ids, op, q) = (args.inputs[0], args.ints(1)?, args.op.name, args.inquiry());
    let (rows, columns) = (table.shape().rows(), table.shape().columns());
    if let Some(wrong) = ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < rows)) {
        return q.fail(format!("{wrong} is not one of the {rows} rows of the table"));
    }
    let bags = bags(&q, &args.ints(2)?, ids.len())?;
    let shares = if args.inputs.len() > 3 { Some(args.f32s(3)?) } else { None };
    let (mode, session) = (q.text("mode")?, args.session);
    let y = Span::of(args.output(0)?);
    let failure = std::sync::Mutex::new(None);
    session.split(bags.len(), 4, &|range| {
        let mut one = vec![0.0f32; columns];
        for i in range {
            // SAFETY: every bag has a row of its own.
            let out = unsafe { y.part(i * columns..(i + 1) * columns) };
            out.fill(if mode == "max" && !bags[i].is_empty() { f32::NEG_INFINITY } else { 0.0 });
            for at in bags[i].clone() {
                if let Err(error) = row(table, ids[at] as usize, &mut one) {
                    *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                }
                match (mode, &shares) {
                    ("max", _) => out.iter_mut().zip(&one).for_each(|(out, v)| *out = out.max(*v)),
                    (_, Some(shares)) => out.iter_mut().zip(&one).for_each(|(out, v)| *out += shares[at] * v),
                    (_, None) => out.iter_mut().zip(&one).for_each(|(out, v)| *out += v),
                }
            }
            if mode == "mean" && !bags[i].is_empty() {
                let share = 1.0 / bags[i].len() as f32;
                out.iter_mut().for_each(|out| *out *= share);
            }
        }
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(message) => Err(failed(op, message)),
        None => Ok(()),
    }
}

fn row(table: &windlass_tensor::Tensor, row: usize, out: &mut [f32]) -> Result<(), String> {
    let (columns, text) = (out.len(), |e: &dyn std::fmt::Display| e.to_string());
    match table.element() {
        Element::Plain(dtype) => {
            let size = columns * dtype.size();
            let start = table.layout().offset() * dtype.size() + row * size;
            let bytes =
                table.planes()[0].bytes().and_then(|b| b.get(start..start + size)).ok_or("is not in host memory")?;
            float::to_f32(*dtype, bytes, out).map_err(|e| text(&e))
        }
        Element::Packed(layout) => {
            let packing = layout.as_any().downcast_ref::<Packing>().ok_or("is not a scheme that can be decoded")?;
            if packing.scheme.row_granularity(columns) > 1 {
                let tensor = table.narrow(0, 0, table.shape().rows()).map_err(|e| text(&e))?;
                return Err(format!("rows of {} cannot be read one by one", tensor.element().name()));
            }
            let one = table.narrow(0, row, 1).and_then(|t| t.cut_planes()).map_err(|e| text(&e))?;
            let planes: Option<Vec<&[u8]>> = one.iter().map(|plane| plane.bytes()).collect();
            let planes = planes.ok_or("is not in host memory")?;
            packing.scheme.decode(&planes, columns, packing.float, out).map_err(|e| text(&e))
        }
    }
}

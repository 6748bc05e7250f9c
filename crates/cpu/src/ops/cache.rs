//! Writing keys and values into their cache.

use windlass_ops::library::Row;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use super::failed;
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "cache_write", supports, run };

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, q, op) = (args.f32s(0)?, args.inquiry(), args.op.name);
    let (heads, context, start) = (q.int("heads")?, q.int("context")?, q.int("start")?);
    let width = args.inputs[0].shape().columns().max(1);
    let dim = width / heads.max(1);
    let row = Row::of(&args.outputs[0], dim);
    let session = args.session;
    let mut planes = args.outputs[0].planes_mut().ok_or_else(|| failed(op, "the cache is shared"))?;
    let Some(cache) = planes.first_mut() else { return Ok(()) };
    let cache = Span::of(cache);
    session.split(x.len() / width, 32, &|tokens| {
        for token in tokens {
            for (head, values) in x[token * width..][..width].chunks_exact(dim).enumerate() {
                let at = (head * context + start + token) * row.bytes;
                // SAFETY: every token and head has a place of its own.
                let out = unsafe { cache.part(at..at + row.bytes) };
                // The sizes agree, and the op's rule admits only what floats can be written in.
                let _ = row.write(values, out);
            }
        }
    });
    Ok(())
}

//! `lora_linear`: activations are prepared once for all maps and their changes.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Element, Tensor};

use super::failed;
use super::linear::planes;
use crate::linear::{Activations, Form, Linear};

pub(super) const KERNEL: Kernel = Kernel { op: "lora_linear", supports, run };

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let floats = |t: &Tensor| t.element().dtype() == Some(DType::F32);
    let (maps, _) = q.inputs[1..].as_chunks::<3>();
    let served =
        |t: &Tensor| matches!(t.element(), Element::Plain(DType::F32 | DType::F16 | DType::BF16) | Element::Packed(_));
    let whole = q.inputs[1..].iter().all(|t| t.shape().values() > 0) && q.inputs[0].shape().values() > 0;
    if whole && floats(q.inputs[0]) && maps.iter().all(|[w, a, b]| served(w) && floats(a) && floats(b)) {
        Ok(())
    } else {
        Err("takes F32, and weights of floats or packed")
    }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (op, session, inputs) = (args.op.name, args.session, args.inputs);
    let (x, by) = (args.f32s(0)?, args.inquiry().float("by")? as f32);
    let inside = inputs[0].shape().columns();
    let m = x.len() / inside;
    let wrong = |e: crate::Error| failed(op, e);
    let x = Activations::new(Form::Floats, &x, m, inside, session).map_err(wrong)?;
    for (i, [weight, a, b]) in inputs[1..].as_chunks::<3>().0.iter().enumerate() {
        with(op, a, |a| a.apply(&x, args.output(2 * i + 1)?, session).map_err(wrong))?;
        let mut low = args.output(2 * i + 1)?.to_vec();
        low.iter_mut().for_each(|v| *v *= by);
        let low = Activations::new(Form::Floats, &low, m, a.shape().rows(), session).map_err(wrong)?;
        with(op, weight, |weight| weight.apply(&x, args.output(2 * i)?, session).map_err(wrong))?;
        with(op, b, |b| b.add(&low, args.output(2 * i)?, session).map_err(wrong))?;
    }
    Ok(())
}

/// Does something with weights that are not rounded.
fn with<R>(op: &'static str, weight: &Tensor, work: impl FnOnce(&Linear) -> Result<R, Error>) -> Result<R, Error> {
    let (weight, planes) = planes(weight)?;
    let bytes: Option<Vec<&[u8]>> = planes.iter().map(|plane| plane.bytes()).collect();
    let bytes = bytes.ok_or_else(|| failed(op, "weights are not in host memory"))?;
    let (rows, columns) = (weight.shape().rows(), weight.shape().columns());
    let linear = Linear::new(weight.element(), &bytes, rows, columns).map_err(|e| failed(op, e))?;
    work(&linear.exact())
}

//! `linear`: activations are prepared once for all matrices that want the same form.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::{DType, Element, Storage, Tensor};

use super::failed;
use crate::linear::{Activations, Linear};

pub(super) const KERNEL: Kernel = Kernel { op: "linear", supports, run };

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let floats =
        |t: &&Tensor| matches!(t.element(), Element::Plain(DType::F32 | DType::F16 | DType::BF16) | Element::Packed(_));
    if q.inputs.iter().all(floats) { Ok(()) } else { Err("weights are neither floats nor packed") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let x = args.f32s(0)?;
    let (columns, op) = (args.inputs[0].shape().columns(), args.op.name);
    let m = x.len() / columns.max(1);
    let (inputs, session, exact) = (args.inputs, args.session, args.inquiry().bool("exact")?);
    let mut prepared: Vec<Activations> = Vec::new();
    for (i, weight) in inputs[1..].iter().enumerate() {
        let (weight, planes) = planes(weight)?;
        let bytes: Option<Vec<&[u8]>> = planes.iter().map(|plane| plane.bytes()).collect();
        let bytes = bytes.ok_or_else(|| failed(op, "weights are not in host memory"))?;
        let rows = weight.shape().rows();
        let linear = Linear::new(weight.element(), &bytes, rows, columns).map_err(|e| failed(op, e))?;
        let linear = if exact { linear.exact() } else { linear };
        let form = linear.form();
        if !prepared.iter().any(|activations| activations.form() == form) {
            prepared.push(Activations::new(form, &x, m, columns, session).map_err(|e| failed(op, e))?);
        }
        let Some(activations) = prepared.iter().find(|a| a.form() == form) else { continue };
        linear.apply(activations, args.output(i)?, session).map_err(|e| failed(op, e))?;
    }
    Ok(())
}

/// A weight without gaps, and its planes cut to what it means.
pub(super) fn planes(weight: &Tensor) -> Result<(Tensor, Vec<Storage>), Error> {
    let weight = weight.contiguous()?;
    let planes = match weight.element() {
        Element::Packed(_) => weight.cut_planes()?,
        Element::Plain(dtype) => {
            let (start, bytes) = (weight.layout().offset() * dtype.size(), weight.shape().values() * dtype.size());
            vec![weight.planes()[0].slice(start, bytes)?]
        }
    };
    Ok((weight, planes))
}

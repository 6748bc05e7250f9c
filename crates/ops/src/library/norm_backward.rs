//! What flows back through norms.

use windlass_tensor::{DType, Tensor};

use super::{MEAN, VAR, elementwise, elementwise_with, reduction};
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Backward, Error, Gradient, Op, Tolerance};

/// The gradients of a root mean square norm, for its input and, with `weight_gradient`, for its weight.
pub static RMS_NORM_BACKWARD: Op = Op {
    name: "rms_norm_backward",
    about: "r (g w - x r^2 mean(g w x)) for r = 1 / sqrt(mean(x^2) + eps), and the sum over rows of g x r",
    inputs: &[Input::new("x"), Input::new("gradient"), Input::optional("weight")],
    attributes: &[
        Attribute::float("eps", 1e-6),
        Attribute::float("offset", 0.0),
        Attribute::bool("weight_gradient", false),
    ],
    outputs,
    reference,
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance { relative: 1e-4, absolute: 1e-5 },
    profiles: |_| {
        let rows = |name, rows, columns| {
            Profile::new(name).normal(&[rows, columns]).normal(&[rows, columns]).normal(&[columns])
        };
        let both = Attributes::new().bool("weight_gradient", true).float("offset", 1.0);
        vec![
            rows("one", 1, 1),
            rows("odd", 3, 31).attributes(both.clone()),
            rows("straddling", 2, 65),
            rows("wide", 7, 1024).attributes(both),
            Profile::new("no weight").normal(&[3, 40]).normal(&[3, 40]),
        ]
    },
};

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (x, columns) = (q.like(0)?, q.input(0)?.shape().columns());
    if q.shape(1)? != x.shape {
        return q.fail(format!("x is {:?}, its gradient {:?}", x.shape, q.shape(1)?));
    }
    if let Some(weight) = q.inputs.get(2).filter(|w| w.shape().dims() != [columns]) {
        return q.fail(format!("the weight must have {columns} values, not {:?}", weight.shape()));
    }
    let dtype = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let weight = q.bool("weight_gradient")?.then(|| OutputSpec::new(dtype, [columns]));
    Ok([OutputSpec { dtype, ..x }].into_iter().chain(weight).collect())
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let q = args.inquiry();
    let (eps, offset, columns) = (q.float("eps")?, q.float("offset")?, args.inputs[0].shape().columns().max(1));
    let (x, g) = (args.numbers(0)?, args.numbers(1)?);
    let weight = if args.inputs.len() > 2 { args.numbers(2)? } else { vec![1.0 - offset; columns] };
    let (mut dx, mut dw) = (Vec::with_capacity(x.len()), vec![0.0; columns]);
    for (x, g) in x.chunks_exact(columns).zip(g.chunks_exact(columns)) {
        let r = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / columns as f64 + eps).sqrt();
        let scaled: Vec<f64> = g.iter().zip(&weight).map(|(g, w)| g * (w + offset)).collect();
        let mean = scaled.iter().zip(x).map(|(g, x)| g * x).sum::<f64>() / columns as f64;
        dx.extend(scaled.iter().zip(x).map(|(g, x)| r * (g - x * r * r * mean)));
        dw.iter_mut().zip(g.iter().zip(x)).for_each(|(dw, (g, x))| *dw += g * x * r);
    }
    args.write_numbers(0, &dx)?;
    if args.outputs.len() > 1 { args.write_numbers(1, &dw) } else { Ok(()) }
}

pub(super) fn rms_norm(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let q = b.inquiry();
    let attributes = Attributes::new()
        .float("eps", q.float("eps")?)
        .float("offset", q.float("offset")?)
        .bool("weight_gradient", b.wants(1));
    let mut inputs = vec![b.input(0)?, b.gradient()?];
    if b.inputs.len() > 1 {
        inputs.push(b.input(1)?);
    }
    let mut all: Vec<Option<Tensor>> =
        b.cx.call(&RMS_NORM_BACKWARD, &inputs, &attributes)?.into_iter().map(Some).collect();
    all.resize(b.inputs.len(), None);
    Ok(all)
}

pub(super) fn layer_norm(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (cx, gradient) = (b.cx, b.gradient()?);
    let mut all = vec![None; b.inputs.len()];
    if b.wants(2) {
        all[2] = Some(b.unstretched(gradient.clone(), 2)?);
    }
    if !b.wants(0) && !b.wants(1) {
        return Ok(all);
    }
    let (x, eps) = (b.input(0)?, b.inquiry().float("eps")?);
    let normed = cx.one(&super::LAYER_NORM, &[x], &Attributes::new().float("eps", eps))?;
    if b.wants(1) {
        all[1] = Some(b.unstretched(elementwise(cx, "mul", &[gradient, &normed])?, 1)?);
    }
    if b.wants(0) {
        let scaled = match b.inputs.len() {
            1 => gradient.clone(),
            _ => elementwise(cx, "mul", &[gradient, b.input(1)?])?,
        };
        let last = Attributes::new().ints("dim", &[-1]).bool("keepdim", true);
        let variance = cx.one(&VAR, &[x], &last.int("correction", 0))?;
        let variance = elementwise_with(cx, "shift", &[&variance], &Attributes::new().float("by", eps))?;
        let factor = elementwise(cx, "rsqrt", &[&variance])?;
        let mean = reduction(cx, &MEAN, &scaled, -1, true)?;
        let along = reduction(cx, &MEAN, &elementwise(cx, "mul", &[&scaled, &normed])?, -1, true)?;
        let rest = elementwise(cx, "sub", &[&scaled, &mean])?;
        let rest = elementwise(cx, "sub", &[&rest, &elementwise(cx, "mul", &[&normed, &along])?])?;
        all[0] = Some(elementwise(cx, "mul", &[&rest, &factor])?);
    }
    Ok(all)
}

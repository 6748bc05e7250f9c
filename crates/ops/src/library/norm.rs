//! Norms over the last dimension.

use windlass_tensor::Tensor;

use super::norm_backward;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Reads, Tolerance};

const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-6 };

/// Root mean square norm (arXiv 1910.07467).
pub static RMS_NORM: Op = Op {
    name: "rms_norm",
    about: "x / sqrt(mean(x^2) + eps) * (weight + offset), over the last dimension",
    inputs: &[Input::new("x"), Input::optional("weight")],
    attributes: &[Attribute::float("eps", 1e-6), Attribute::float("offset", 0.0)],
    outputs,
    reference: |args: &mut Args| {
        let offset = args.inquiry().float("offset")?;
        normalise(args, offset, |row, eps| {
            let mean = row.iter().map(|v| v.powi(2)).sum::<f64>() / row.len() as f64;
            (0.0, 1.0 / (mean + eps).sqrt())
        })
    },
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0), norm_backward::rms_norm),
    tolerance: TOLERANCE,
    profiles: |_| norm_profiles(1),
};

/// Layer norm (arXiv 1607.06450).
pub static LAYER_NORM: Op = Op {
    name: "layer_norm",
    about: "(x - mean(x)) / sqrt(var(x) + eps) * weight + bias, over the last dimension",
    inputs: &[Input::new("x"), Input::optional("weight"), Input::optional("bias")],
    attributes: &[Attribute::float("eps", 1e-5)],
    outputs,
    reference: |args: &mut Args| {
        normalise(args, 0.0, |row, eps| {
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            (mean, 1.0 / (variance + eps).sqrt())
        })
    },
    gradient: Gradient::rule(
        |_, input| if input == 2 { Reads::NOTHING } else { Reads::inputs_from(0) },
        norm_backward::layer_norm,
    ),
    tolerance: TOLERANCE,
    profiles: |_| norm_profiles(2),
};

/// Rows of `x` around the width of vectors, with `vectors` of weights.
fn norm_profiles(vectors: usize) -> Vec<Profile> {
    let shapes = [("one", [1, 1]), ("odd", [3, 31]), ("straddling", [2, 65]), ("wide", [7, 1024])];
    let rows = |(name, [rows, columns]): (&'static str, [usize; 2])| {
        (0..vectors).fold(Profile::new(name).normal(&[rows, columns]), |profile, _| profile.normal(&[columns]))
    };
    shapes.into_iter().map(rows).chain([Profile::new("no weight").normal(&[3, 40])]).collect()
}

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let columns = q.input(0)?.shape().columns();
    for (i, vector) in q.inputs.iter().enumerate().skip(1) {
        if vector.shape().dims() != [columns] {
            return q.fail(format!("input {i} must have {columns} values, not {:?}", vector.shape()));
        }
    }
    Ok(vec![q.like(0)?])
}

/// Rows less a mean, times a factor, times the weight, plus the bias; `moments` gives mean and factor of a row.
fn normalise(args: &mut Args, offset: f64, moments: fn(&[f64], f64) -> (f64, f64)) -> Result<(), Error> {
    let (x, eps) = (args.numbers(0)?, args.inquiry().float("eps")?);
    let columns = args.inputs[0].shape().columns().max(1);
    let weight = if args.inputs.len() > 1 { args.numbers(1)? } else { vec![1.0 - offset; columns] };
    let bias = if args.inputs.len() > 2 { args.numbers(2)? } else { vec![0.0; columns] };
    let mut values = Vec::with_capacity(x.len());
    for row in x.chunks_exact(columns) {
        let (mean, factor) = moments(row, eps);
        let each = row.iter().zip(&weight).zip(&bias);
        values.extend(each.map(|((x, w), b)| (x - mean) * factor * (w + offset) + b));
    }
    args.write_numbers(0, &values)
}

/// See [`RMS_NORM`]; `weight` has a value for each column of `x` `[.., columns]`.
pub fn rms_norm(cx: &Context, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, Error> {
    cx.one(&RMS_NORM, &[x, weight], &Attributes::new().float("eps", eps.into()))
}

/// See [`LAYER_NORM`].
pub fn layer_norm(cx: &Context, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor, Error> {
    cx.one(&LAYER_NORM, &[x, weight, bias], &Attributes::new().float("eps", eps.into()))
}

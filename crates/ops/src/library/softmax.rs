//! Softmax over the last dimension.

use windlass_tensor::Tensor;

use super::{SUM, elementwise, reduction};
use crate::library::row_profiles;
use crate::op::Input;
use crate::{Args, Attributes, Context, Error, Gradient, Op, Reads, Tolerance};

/// Weights that sum to one.
pub static SOFTMAX: Op = Op {
    name: "softmax",
    about: "exp(x - max(x)) / sum(exp(x - max(x))), over the last dimension",
    inputs: &[Input::new("x")],
    attributes: &[],
    outputs: |q| Ok(vec![q.like(0)?]),
    reference: |args: &mut Args| rows(args, |x, max, sum| (x - max).exp() / sum),
    gradient: Gradient::rule(
        |_, _| Reads::output(0),
        |b| {
            let (cx, y, g) = (b.cx, b.output(0)?, b.gradient()?);
            let along = reduction(cx, &SUM, &elementwise(cx, "mul", &[g, y])?, -1, true)?;
            b.only(elementwise(cx, "mul", &[y, &elementwise(cx, "sub", &[g, &along])?])?)
        },
    ),
    tolerance: Tolerance { relative: 1e-5, absolute: 1e-7 },
    profiles: |_| row_profiles(),
};

/// Logarithms of weights that sum to one.
pub static LOG_SOFTMAX: Op = Op {
    name: "log_softmax",
    about: "x - max(x) - log(sum(exp(x - max(x)))), over the last dimension",
    inputs: &[Input::new("x")],
    attributes: &[],
    outputs: |q| Ok(vec![q.like(0)?]),
    reference: |args: &mut Args| rows(args, |x, max, sum| x - max - sum.ln()),
    gradient: Gradient::rule(
        |_, _| Reads::output(0),
        |b| {
            let (cx, g) = (b.cx, b.gradient()?);
            let along = reduction(cx, &SUM, g, -1, true)?;
            let weights = elementwise(cx, "exp", &[b.output(0)?])?;
            b.only(elementwise(cx, "sub", &[g, &elementwise(cx, "mul", &[&weights, &along])?])?)
        },
    ),
    tolerance: Tolerance { relative: 1e-5, absolute: 1e-5 },
    profiles: |_| row_profiles(),
};

fn rows(args: &mut Args, value: fn(f64, f64, f64) -> f64) -> Result<(), Error> {
    let x = args.numbers(0)?;
    let mut values = Vec::with_capacity(x.len());
    for row in x.chunks_exact(args.inputs[0].shape().columns().max(1)) {
        let max = row.iter().fold(f64::NEG_INFINITY, |max, v| max.max(*v));
        let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
        values.extend(row.iter().map(|v| value(*v, max, sum)));
    }
    args.write_numbers(0, &values)
}

/// See [`SOFTMAX`].
pub fn softmax(cx: &Context, x: &Tensor) -> Result<Tensor, Error> {
    cx.one(&SOFTMAX, &[x], &Attributes::NONE)
}

/// See [`LOG_SOFTMAX`].
pub fn log_softmax(cx: &Context, x: &Tensor) -> Result<Tensor, Error> {
    cx.one(&LOG_SOFTMAX, &[x], &Attributes::NONE)
}

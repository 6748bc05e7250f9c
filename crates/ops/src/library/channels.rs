//! Norms over channels: groups of them, each by itself, or each over the whole batch.

use windlass_tensor::Tensor;

use super::{LAYER_NORM, SUM, elementwise, elementwise_with, norm_backward, scale};
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Fill, Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Saved, Tolerance};

const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-5 };
const X_WEIGHT_BIAS: &[Input] = &[Input::new("x"), Input::optional("weight"), Input::optional("bias")];

/// Group norm (arXiv 1803.08494).
pub static GROUP_NORM: Op = Op {
    name: "group_norm",
    about: "x [n, c, ..] less mean, over deviation, of each group of channels, times weight [c], plus bias [c]",
    inputs: X_WEIGHT_BIAS,
    attributes: &[Attribute::required("groups"), Attribute::float("eps", 1e-5)],
    outputs: |q| {
        let (groups, shape) = (q.int("groups")?, q.shape(0)?);
        if groups == 0 || shape.get(1).is_none_or(|c| c % groups != 0) {
            return q.fail(format!("the channels of {shape:?} do not make {groups} groups"));
        }
        outputs(q, 1)
    },
    reference: |args| {
        let groups = args.inquiry().int("groups")?;
        normalise(args, 1, |image, channel, channels| image * groups + channel * groups / channels)
    },
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0), |b| flow(b, Kind::Groups(b.inquiry().int("groups")?))),
    tolerance: TOLERANCE,
    profiles: |_| {
        let groups = |n| Attributes::new().int("groups", n);
        vec![
            Profile::new("images").normal(&[2, 6, 5, 7]).normal(&[6]).normal(&[6]).attributes(groups(3)),
            Profile::new("one group").normal(&[3, 4, 33]).normal(&[4]).attributes(groups(1)),
            Profile::new("no weight").normal(&[2, 8]).attributes(groups(2)),
        ]
    },
};

/// Instance norm (arXiv 1607.08022).
pub static INSTANCE_NORM: Op = Op {
    name: "instance_norm",
    about: "x [n, c, ..] less mean, over deviation, of each channel of each, times weight [c], plus bias [c]",
    inputs: X_WEIGHT_BIAS,
    attributes: &[Attribute::float("eps", 1e-5)],
    outputs: |q| outputs(q, 1),
    reference: |args| normalise(args, 1, |image, channel, channels| image * channels + channel),
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0), |b| flow(b, Kind::Groups(b.shape(0)[1]))),
    tolerance: TOLERANCE,
    profiles: |_| {
        vec![
            Profile::new("images").normal(&[2, 3, 5, 7]).normal(&[3]).normal(&[3]),
            Profile::new("no weight").normal(&[2, 4, 40]),
        ]
    },
};

/// Batch norm while training (arXiv 1502.03167): by the mean and variance of the batch.
pub static BATCH_NORM_TRAINING: Op = Op {
    name: "batch_norm_training",
    about: "x [n, c, ..] less mean, over deviation, of each channel over the batch, times weight [c], plus bias [c]",
    inputs: X_WEIGHT_BIAS,
    attributes: &[Attribute::float("eps", 1e-5)],
    outputs: |q| outputs(q, 1),
    reference: |args| normalise(args, 1, |_, channel, _| channel),
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0), |b| flow(b, Kind::Batch)),
    tolerance: TOLERANCE,
    profiles: |_| {
        vec![
            Profile::new("images").normal(&[3, 4, 5, 7]).normal(&[4]).normal(&[4]),
            Profile::new("rows").normal(&[33, 5]).normal(&[5]),
            Profile::new("no weight").normal(&[2, 4, 9]),
        ]
    },
};

/// Batch norm by a mean and variance that are known.
pub static BATCH_NORM: Op = Op {
    name: "batch_norm",
    about: "(x - mean) / sqrt(variance + eps) * weight + bias, all [c] along the channels of x [n, c, ..]",
    inputs: &[
        Input::new("x"),
        Input::new("mean"),
        Input::new("variance"),
        Input::optional("weight"),
        Input::optional("bias"),
    ],
    attributes: &[Attribute::float("eps", 1e-5)],
    outputs: |q| outputs(q, 1),
    reference: |args| {
        let (x, eps) = (args.numbers(0)?, args.inquiry().float("eps")?);
        let (channels, inner) = channels(&args.inquiry())?;
        let (mean, variance) = (args.numbers(1)?, args.numbers(2)?);
        let weight = vector(args, 3, 1.0, channels)?;
        let bias = vector(args, 4, 0.0, channels)?;
        let value = |(at, x): (usize, &f64)| {
            let c = at / inner % channels;
            (x - mean[c]) / (variance[c] + eps).sqrt() * weight[c] + bias[c]
        };
        let values: Vec<f64> = x.iter().enumerate().map(value).collect();
        args.write_numbers(0, &values)
    },
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0), known),
    tolerance: TOLERANCE,
    profiles: |_| {
        let variance = |c: usize| Sample::normal(&[c]).fill(Fill::Between(0.5, 2.0));
        vec![
            Profile::new("images").normal(&[3, 4, 5, 7]).normal(&[4]).with(variance(4)).normal(&[4]).normal(&[4]),
            Profile::new("no weight").normal(&[7, 33]).normal(&[33]).with(variance(33)),
        ]
    },
};

/// Channels of `x` `[n, c, ..]`, and values of each.
pub fn channels(q: &Inquiry) -> Result<(usize, usize), Error> {
    match q.shape(0)? {
        [_, channels, inner @ ..] => Ok((*channels.max(&1), inner.iter().product::<usize>().max(1))),
        other => q.fail(format!("x must be [n, c, ..], not {other:?}")),
    }
}

fn outputs(q: &Inquiry, first_vector: usize) -> Result<Vec<OutputSpec>, Error> {
    let (channels, _) = channels(q)?;
    for (i, vector) in q.inputs.iter().enumerate().skip(first_vector) {
        if vector.shape().dims() != [channels] {
            return q.fail(format!("input {i} must have {channels} values, not {:?}", vector.shape()));
        }
    }
    let like = q.like(0)?;
    if like.dtype.is_float() { Ok(vec![like]) } else { q.fail(format!("takes floats, not {}", like.dtype)) }
}

fn vector(args: &Args, index: usize, default: f64, count: usize) -> Result<Vec<f64>, Error> {
    if args.inputs.len() > index { args.numbers(index) } else { Ok(vec![default; count]) }
}

/// Normalises what falls together: `set` gives the number of the set of an image's channel.
fn normalise(args: &mut Args, weight: usize, set: impl Fn(usize, usize, usize) -> usize) -> Result<(), Error> {
    let (x, eps) = (args.numbers(0)?, args.inquiry().float("eps")?);
    let (channels, inner) = channels(&args.inquiry())?;
    let (weight, bias) = (vector(args, weight, 1.0, channels)?, vector(args, weight + 1, 0.0, channels)?);
    let set_of = |at: usize| set(at / inner / channels, at / inner % channels, channels);
    let count = (0..x.len()).step_by(inner).map(set_of).max().map_or(0, |last| last + 1);
    let mut sums = vec![(0.0, 0.0); count];
    for (at, v) in x.iter().enumerate() {
        let sum = &mut sums[set_of(at)];
        *sum = (sum.0 + v, sum.1 + 1.0);
    }
    let means: Vec<f64> = sums.iter().map(|(sum, count)| sum / count).collect();
    let mut squares = vec![0.0; count];
    x.iter().enumerate().for_each(|(at, v)| squares[set_of(at)] += (v - means[set_of(at)]).powi(2));
    let value = |(at, v): (usize, &f64)| {
        let (set, c) = (set_of(at), at / inner % channels);
        (v - means[set]) / (squares[set] / sums[set].1 + eps).sqrt() * weight[c] + bias[c]
    };
    let values: Vec<f64> = x.iter().enumerate().map(value).collect();
    args.write_numbers(0, &values)
}

/// What falls together.
#[derive(Clone, Copy)]
enum Kind {
    /// So many groups of channels of an image.
    Groups(usize),
    /// A channel of all images.
    Batch,
}

impl Kind {
    /// The values that fall together as rows.
    fn rows(self, x: &Tensor) -> Result<Tensor, Error> {
        let x = match self {
            Kind::Groups(_) => x.contiguous()?,
            Kind::Batch => x.transpose(0, 1)?.contiguous()?,
        };
        let rows = match self {
            Kind::Groups(groups) => x.shape()[0] * groups,
            Kind::Batch => x.shape()[0],
        };
        let columns = x.shape().values() / rows.max(1);
        Ok(x.reshape([rows, columns])?)
    }

    /// The way back, to `shape`.
    fn back(self, rows: &Tensor, shape: &[usize]) -> Result<Tensor, Error> {
        match self {
            Kind::Groups(_) => Ok(rows.reshape(shape.to_vec())?),
            Kind::Batch => {
                let mut turned = shape.to_vec();
                turned.swap(0, 1);
                Ok(rows.reshape(turned)?.transpose(0, 1)?.contiguous()?)
            }
        }
    }
}

type Flowed = Result<Vec<Option<Tensor>>, Error>;

/// A norm over channels is a layer norm of rows, times a weight of its own.
fn flow(b: &Backward, kind: Kind) -> Flowed {
    let (cx, g, x, shape) = (b.cx, b.gradient()?, b.input(0)?, b.shape(0));
    let mut all = vec![None; b.inputs.len()];
    let rows = kind.rows(x)?;
    let eps = Attributes::new().float("eps", b.inquiry().float("eps")?);
    if b.wants(0) {
        let scaled =
            if b.inputs.len() > 1 { elementwise(cx, "mul", &[g, &spread(b.input(1)?, shape)?])? } else { g.clone() };
        let flowed = norm_backward::layer_norm(&Backward {
            cx,
            op: &LAYER_NORM,
            inputs: &[Saved::Kept(rows.clone())],
            outputs: &[],
            attributes: &eps,
            gradients: &[Some(kind.rows(&scaled)?)],
            wanted: &[true],
        })?;
        if let Some(Some(flowed)) = flowed.into_iter().next() {
            all[0] = Some(kind.back(&flowed, shape)?);
        }
    }
    if b.wants(1) {
        let normed = kind.back(&cx.one(&LAYER_NORM, &[&rows], &eps)?, shape)?;
        all[1] = Some(over_channels(cx, &elementwise(cx, "mul", &[g, &normed])?)?);
    }
    if b.wants(2) {
        all[2] = Some(over_channels(cx, g)?);
    }
    Ok(all)
}

fn known(b: &Backward) -> Flowed {
    let (cx, g, x, shape) = (b.cx, b.gradient()?, b.input(0)?, b.shape(0));
    let eps = Attributes::new().float("by", b.inquiry().float("eps")?);
    let factor = elementwise(cx, "rsqrt", &[&elementwise_with(cx, "shift", &[b.input(2)?], &eps)?])?;
    let apart = elementwise(cx, "sub", &[x, &spread(b.input(1)?, shape)?])?;
    let normed = elementwise(cx, "mul", &[&apart, &spread(&factor, shape)?])?;
    let scaled =
        if b.inputs.len() > 3 { elementwise(cx, "mul", &[g, &spread(b.input(3)?, shape)?])? } else { g.clone() };
    let flowed = elementwise(cx, "mul", &[&scaled, &spread(&factor, shape)?])?;
    let mut all = vec![None; b.inputs.len()];
    if b.wants(1) {
        all[1] = Some(scale(cx, over_channels(cx, &flowed)?, -1.0)?);
    }
    if b.wants(2) {
        let along = over_channels(cx, &elementwise(cx, "mul", &[&flowed, &normed])?)?;
        all[2] = Some(scale(cx, elementwise(cx, "mul", &[&along, &factor])?, -0.5)?);
    }
    if b.wants(3) {
        all[3] = Some(over_channels(cx, &elementwise(cx, "mul", &[g, &normed])?)?);
    }
    if b.wants(4) {
        all[4] = Some(over_channels(cx, g)?);
    }
    all[0] = Some(flowed);
    Ok(all)
}

/// A vector along the channels, ready to be stretched to `[n, c, ..]`.
fn spread(vector: &Tensor, shape: &[usize]) -> Result<Tensor, Error> {
    let inner = vec![1; shape.len() - 2];
    Ok(vector.contiguous()?.reshape([vec![shape[1]], inner].concat())?)
}

/// The sum over everything but channels.
fn over_channels(cx: &Context, x: &Tensor) -> Result<Tensor, Error> {
    let dims: Vec<i64> = (0..x.shape().rank() as i64).filter(|dim| *dim != 1).collect();
    cx.one(&SUM, &[x], &Attributes::new().ints("dim", &dims))
}

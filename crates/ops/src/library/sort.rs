//! Order along a dimension. Equal values keep their order; what is not a number is the largest.

use windlass_tensor::{DType, Tensor};

use super::SCATTER;
use super::axis::Axis;
use crate::attributes::Value;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Fill, Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

/// Values in order, and where they stood.
pub static SORT: Op = Op {
    name: "sort",
    about: "the values in rising order along dim, or falling, and their places",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::int("dim", -1), Attribute::bool("descending", false)],
    outputs: |q| {
        let (length, like) = (Axis::of(q, q.shape(0)?, "dim")?.length, q.like(0)?);
        ordered(q, length, Some(like.dtype))
    },
    reference: |args| {
        let (length, falling) = (length(args)?, args.inquiry().bool("descending")?);
        order(args, length, falling, Some(0), 1)
    },
    gradient: Gradient::rule(|_, _| Reads::output(1), backward),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        vec![
            Profile::new("rows").normal(&[3, 33]),
            Profile::new("ties").with(Sample::normal(&[40, 2]).fill(Fill::Below(5))).attributes(falling(0)),
        ]
    },
};

/// Where the values stand that come in order.
pub static ARGSORT: Op = Op {
    name: "argsort",
    about: "the places of the values in rising order along dim, or falling",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::int("dim", -1), Attribute::bool("descending", false)],
    outputs: |q| ordered(q, Axis::of(q, q.shape(0)?, "dim")?.length, None),
    reference: |args| {
        let (length, falling) = (length(args)?, args.inquiry().bool("descending")?);
        order(args, length, falling, None, 0)
    },
    gradient: Gradient::Stops,
    tolerance: Tolerance::EXACT,
    profiles: SORT.profiles,
};

/// The first values in order, and where they stood.
pub static TOPK: Op = Op {
    name: "topk",
    about: "the k largest values along dim, or smallest, in order, and their places",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::required("k"), Attribute::int("dim", -1), Attribute::bool("largest", true)],
    outputs: |q| {
        let (axis, k) = (Axis::of(q, q.shape(0)?, "dim")?, q.int("k")?);
        if k > axis.length {
            return q.fail(format!("there are no {k} of {} values", axis.length));
        }
        ordered(q, k, Some(q.like(0)?.dtype))
    },
    reference: |args| {
        let (k, largest) = (args.inquiry().int("k")?, args.inquiry().bool("largest")?);
        order(args, k, largest, Some(0), 1)
    },
    gradient: Gradient::rule(|_, _| Reads::output(1), backward),
    tolerance: Tolerance::EXACT,
    profiles: |_| vec![Profile::new("five").normal(&[3, 33]).attributes(Attributes::new().int("k", 5))],
};

/// Values go back to where they stood.
fn backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let g = b.gradient()?;
    let zeros = crate::zeros(g.element().dtype().unwrap_or(DType::F32), b.shape(0))?;
    let along = Attributes::new().with("dim", Value::Int(b.inquiry().signed("dim")?));
    b.only(b.cx.one(&SCATTER, &[&zeros, b.output(1)?, g], &along)?)
}

fn falling(dim: usize) -> Attributes {
    Attributes::new().int("dim", dim).bool("descending", true)
}

fn length(args: &Args) -> Result<usize, Error> {
    let q = args.inquiry();
    Ok(Axis::of(&q, q.shape(0)?, "dim")?.length)
}

fn ordered(q: &Inquiry, length: usize, values: Option<DType>) -> Result<Vec<OutputSpec>, Error> {
    let mut shape = q.shape(0)?.to_vec();
    shape[Axis::of(q, q.shape(0)?, "dim")?.index] = length;
    let outputs = values.into_iter().chain([DType::I64]);
    Ok(outputs.map(|dtype| OutputSpec::new(dtype, shape.clone())).collect())
}

fn order(args: &mut Args, keep: usize, falling: bool, values: Option<usize>, places: usize) -> Result<(), Error> {
    let (x, q) = (args.numbers(0)?, args.inquiry());
    let axis = Axis::of(&q, q.shape(0)?, "dim")?;
    let out = Axis { length: keep, ..axis };
    let (mut sorted, mut from) = (vec![0.0; axis.outer * keep * axis.inner], vec![0.0; axis.outer * keep * axis.inner]);
    for (start, to) in axis.starts().zip(out.starts()) {
        let mut all: Vec<(f64, usize)> = axis.places(start).map(|at| x[at]).zip(0..).collect();
        all.sort_by(|(a, _), (b, _)| {
            let rising = a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
            if falling { rising.reverse() } else { rising }
        });
        for (at, (value, place)) in out.places(to).zip(all) {
            (sorted[at], from[at]) = (value, place as f64);
        }
    }
    if let Some(index) = values {
        args.write_numbers(index, &sorted)?;
    }
    args.write_numbers(places, &from)
}

/// See [`TOPK`], over the last dimension: values and places.
pub fn topk(cx: &Context, x: &Tensor, k: usize) -> Result<Vec<Tensor>, Error> {
    cx.call(&TOPK, &[x], &Attributes::new().int("k", k))
}

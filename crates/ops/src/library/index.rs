//! Reading and writing at places that a tensor of whole numbers gives.

use windlass_tensor::{DType, Tensor};

use super::axis::{Axis, coordinates, flat};
use super::movement::place;
use super::{elementwise, scale};
use crate::attributes::Value;
use crate::elementwise::common_shape;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Fill, Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

const X_INDEX: &[Input] = &[Input::new("x"), Input::new("index")];
const X_INDEX_Y: &[Input] = &[Input::new("x"), Input::new("index"), Input::new("y")];
const DIM: &[Attribute] = &[Attribute::int("dim", 0)];

/// A value for each place of `index`.
pub static GATHER: Op = Op {
    name: "gather",
    about: "y[.., i, ..] = x[.., index[.., i, ..], ..] along dim; index has the shape of y",
    inputs: X_INDEX,
    attributes: DIM,
    outputs: |q| {
        within(q, q.shape(1)?)?;
        Ok(vec![OutputSpec::new(q.like(0)?.dtype, q.shape(1)?)])
    },
    reference: |args| {
        let (axis, places) = (axis(args)?, places(args, axis(args)?.length)?);
        let shape = args.inputs[1].shape().to_vec();
        place(args, 0, |at| {
            at[axis.index] = places[flat(&shape, at)];
            Some(0)
        })
    },
    gradient: Gradient::rule(
        |_, _| Reads::input(1),
        |b| {
            let zeros = empty(b)?;
            b.only(b.cx.one(&SCATTER_ADD, &[&zeros, b.input(1)?, b.gradient()?], b.attributes)?)
        },
    ),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        vec![
            Profile::new("first").normal(&[7, 5]).below(7, &[3, 4]),
            Profile::new("last").normal(&[3, 9]).below(9, &[3, 2]).attributes(along(-1)),
        ]
    },
};

/// Slices at places.
pub static INDEX_SELECT: Op = Op {
    name: "index_select",
    about: "the slices of x along dim that index [n] names",
    inputs: X_INDEX,
    attributes: DIM,
    outputs: |q| {
        let [count] = q.shape(1)? else { return q.fail(format!("index must be a row, not {:?}", q.shape(1)?)) };
        let mut like = q.like(0)?;
        let axis = Axis::of(q, q.shape(0)?, "dim")?.index;
        like.shape[axis] = *count;
        Ok(vec![like])
    },
    reference: |args| {
        let (axis, places) = (axis(args)?, places(args, axis(args)?.length)?);
        place(args, 0, |at| {
            at[axis.index] = places[at[axis.index]];
            Some(0)
        })
    },
    gradient: Gradient::rule(
        |_, _| Reads::input(1),
        |b| {
            let zeros = empty(b)?;
            b.only(b.cx.one(&INDEX_ADD, &[&zeros, b.input(1)?, b.gradient()?], b.attributes)?)
        },
    ),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        vec![
            Profile::new("rows").normal(&[7, 5]).below(7, &[4]),
            Profile::new("columns").normal(&[3, 9]).below(9, &[11]).attributes(along(-1)),
        ]
    },
};

/// Writes values at places; the last of two that meet holds.
pub static SCATTER: Op = Op {
    name: "scatter",
    about: "x with x[.., index[.., i, ..], ..] = y[.., i, ..] along dim",
    inputs: X_INDEX_Y,
    attributes: DIM,
    outputs: scatter_outputs,
    reference: |args| scatter(args, |_, y| y),
    gradient: Gradient::rule(|_, _| Reads::input(1), scatter_backward),
    tolerance: Tolerance::EXACT,
    profiles: |_| scatters(),
};

/// Adds values at places.
pub static SCATTER_ADD: Op = Op {
    name: "scatter_add",
    about: "x with y[.., i, ..] added to x[.., index[.., i, ..], ..] along dim",
    inputs: X_INDEX_Y,
    attributes: DIM,
    outputs: scatter_outputs,
    reference: |args| scatter(args, |x, y| x + y),
    gradient: Gradient::rule(
        |_, input| if input == 0 { Reads::NOTHING } else { Reads::input(1) },
        |b| {
            let g = b.gradient()?;
            let y = b.wants(2).then(|| b.cx.one(&GATHER, &[g, b.input(1)?], b.attributes)).transpose()?;
            Ok(vec![Some(g.clone()), None, y])
        },
    ),
    tolerance: Tolerance::SUM,
    profiles: |_| scatters(),
};

/// Adds slices at places.
pub static INDEX_ADD: Op = Op {
    name: "index_add",
    about: "x with alpha times slice i of y added to slice index[i], along dim",
    inputs: X_INDEX_Y,
    attributes: &[Attribute::int("dim", 0), Attribute::float("alpha", 1.0)],
    outputs: |q| {
        let mut expected = q.shape(0)?.to_vec();
        expected[Axis::of(q, q.shape(0)?, "dim")?.index] = q.input(1)?.shape().values();
        if q.shape(1)?.len() != 1 || q.shape(2)? != expected {
            return q.fail(format!("y must be {expected:?} for an index that is a row, not {:?}", q.shape(2)?));
        }
        Ok(vec![q.like(0)?])
    },
    reference: |args| {
        let (axis, places, alpha) = (axis(args)?, places(args, axis(args)?.length)?, args.inquiry().float("alpha")?);
        let (mut x, y) = (args.numbers(0)?, args.numbers(2)?);
        for (value, mut at) in y.iter().zip(coordinates(args.inputs[2].shape())) {
            at[axis.index] = places[at[axis.index]];
            x[flat(args.inputs[0].shape(), &at)] += alpha * value;
        }
        args.write_numbers(0, &x)
    },
    gradient: Gradient::rule(
        |_, input| if input == 0 { Reads::NOTHING } else { Reads::input(1) },
        |b| {
            let (g, q) = (b.gradient()?, b.inquiry());
            let along = Attributes::new().with("dim", Value::Int(q.signed("dim")?));
            let y = match b.wants(2) {
                true => Some(scale(b.cx, b.cx.one(&INDEX_SELECT, &[g, b.input(1)?], &along)?, q.float("alpha")?)?),
                false => None,
            };
            Ok(vec![Some(g.clone()), None, y])
        },
    ),
    tolerance: Tolerance::SUM,
    profiles: |_| {
        vec![
            Profile::new("rows")
                .normal(&[5, 3])
                .below(5, &[8])
                .normal(&[8, 3])
                .attributes(along(0).float("alpha", 0.5)),
        ]
    },
};

/// One value where a mask holds.
pub static MASKED_FILL: Op = Op {
    name: "masked_fill",
    about: "value where mask is not 0, else x; mask is stretched to x",
    inputs: &[Input::new("x"), Input::new("mask")],
    attributes: &[Attribute::float("value", 0.0)],
    outputs: |q| {
        let common = common_shape(&[q.shape(0)?, q.shape(1)?]);
        if common.as_deref() != Some(q.shape(0)?) {
            return q.fail(format!("a mask {:?} cannot be stretched to {:?}", q.shape(1)?, q.shape(0)?));
        }
        Ok(vec![q.like(0)?])
    },
    reference: |args| {
        let stretched = args.inputs[1].broadcast_to(args.inputs[0].shape().to_vec())?;
        let mask = crate::args::numbers(args.op, &stretched)?;
        let shape = args.inputs[0].shape().to_vec();
        place(args, 0, |at| (mask[flat(&shape, at)] == 0.0).then_some(0))
    },
    gradient: Gradient::rule(
        |_, _| Reads::input(1),
        |b| b.only(b.cx.one(&MASKED_FILL, &[b.gradient()?, b.input(1)?], &Attributes::NONE)?),
    ),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let mask = |shape: &[usize]| Sample::normal(shape).fill(Fill::Below(2));
        let value = Attributes::new().float("value", -1.5);
        vec![
            Profile::new("same").normal(&[3, 17]).with(mask(&[3, 17])).attributes(value.clone()),
            Profile::new("stretched").normal(&[3, 17]).with(mask(&[17])).attributes(value),
        ]
    },
};

fn along(dim: i64) -> Attributes {
    Attributes::new().with("dim", crate::Value::Int(dim))
}

fn axis(args: &Args) -> Result<Axis, Error> {
    let q = args.inquiry();
    Axis::of(&q, q.shape(0)?, "dim")
}

/// The places of input 1, all below `bound`.
fn places(args: &Args, bound: usize) -> Result<Vec<usize>, Error> {
    let place = |i: i64| usize::try_from(i).ok().filter(|i| *i < bound);
    let all = args.ints(1)?;
    match all.iter().find(|i| place(**i).is_none()) {
        Some(i) => args.inquiry().fail(format!("{i} is not a place among {bound}")),
        None => Ok(all.into_iter().filter_map(place).collect()),
    }
}

/// Whether `index` fits into `x` along all dimensions but `dim`.
fn within(q: &Inquiry, index: &[usize]) -> Result<(), Error> {
    let x = q.shape(0)?;
    let axis = Axis::of(q, x, "dim")?.index;
    let fits = index.len() == x.len() && index.iter().zip(x).enumerate().all(|(d, (i, x))| d == axis || i <= x);
    if fits { Ok(()) } else { q.fail(format!("an index {index:?} does not go with {x:?} along dimension {axis}")) }
}

fn scatter_outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    within(q, q.shape(1)?)?;
    if q.shape(1)? != q.shape(2)? {
        return q.fail(format!("index {:?} and y {:?} must have one shape", q.shape(1)?, q.shape(2)?));
    }
    Ok(vec![q.like(0)?])
}

fn scatter(args: &mut Args, join: fn(f64, f64) -> f64) -> Result<(), Error> {
    let (axis, places) = (axis(args)?, places(args, axis(args)?.length)?);
    let (mut x, y) = (args.numbers(0)?, args.numbers(2)?);
    for ((value, to), mut at) in y.iter().zip(places).zip(coordinates(args.inputs[1].shape())) {
        at[axis.index] = to;
        let place = flat(args.inputs[0].shape(), &at);
        x[place] = join(x[place], *value);
    }
    args.write_numbers(0, &x)
}

fn scatters() -> Vec<Profile> {
    vec![
        Profile::new("first").normal(&[5, 4]).below(5, &[7, 4]).normal(&[7, 4]),
        Profile::new("last").normal(&[3, 9]).below(9, &[2, 5]).normal(&[2, 5]).attributes(along(-1)),
    ]
}

/// See [`GATHER`].
pub fn gather(cx: &Context, x: &Tensor, index: &Tensor, dim: i64) -> Result<Tensor, Error> {
    cx.one(&GATHER, &[x, index], &along(dim))
}

/// See [`INDEX_SELECT`].
pub fn index_select(cx: &Context, x: &Tensor, index: &Tensor, dim: i64) -> Result<Tensor, Error> {
    cx.one(&INDEX_SELECT, &[x, index], &along(dim))
}

/// Zeros like the first input.
fn empty(b: &Backward) -> Result<Tensor, Error> {
    crate::zeros(b.gradient()?.element().dtype().unwrap_or(DType::F32), b.shape(0))
}

/// What was overwritten gets nothing: neither values of x, nor those of y that a later one replaced.
fn scatter_backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (cx, g, index) = (b.cx, b.gradient()?, b.input(1)?);
    let dtype = g.element().dtype().unwrap_or(DType::F32);
    let mut all = vec![None; 3];
    if b.wants(0) {
        all[0] = Some(cx.one(&SCATTER, &[g, index, &crate::zeros(dtype, b.shape(2))?], b.attributes)?);
    }
    if b.wants(2) {
        let count = index.shape().values();
        let numbers = Attributes::new().int("end", count).text("dtype", "I64");
        let numbers = cx.one(&super::ARANGE, &[], &numbers)?.reshape(index.shape().to_vec())?;
        let last = cx.one(&SCATTER, &[&crate::zeros(DType::I64, b.shape(0))?, index, &numbers], b.attributes)?;
        let last = cx.one(&GATHER, &[&last, index], b.attributes)?;
        let replaced = elementwise(cx, "ne", &[&last, &numbers])?;
        let gathered = cx.one(&GATHER, &[g, index], b.attributes)?;
        all[2] = Some(cx.one(&MASKED_FILL, &[&gathered, &replaced], &Attributes::NONE)?);
    }
    Ok(all)
}

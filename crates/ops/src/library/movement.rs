//! Ops that move values and change none: each is a map from places of the output to places of the inputs.

use windlass_tensor::{DType, Tensor};

use super::axis::{Axis, coordinates, flat};
use crate::args::store;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Saved, Tolerance};

const ONE: &[Input] = &[Input::new("x")];
const MANY: &[Input] = &[Input { many: true, ..Input::new("x") }];

/// An op that only moves.
macro_rules! moves {
    ($($(#[$doc:meta])* $id:ident $name:literal $about:literal $inputs:ident [$($attribute:expr),*]
        $outputs:expr, $reference:expr, $gradient:expr, $profiles:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: $about,
                inputs: $inputs,
                attributes: &[$($attribute),*],
                outputs: $outputs,
                reference: $reference,
                gradient: Gradient::rule(|_, _| Reads::NOTHING, $gradient),
                tolerance: Tolerance::EXACT,
                profiles: |_| $profiles,
            };
        )*
    };
}

moves! {
    /// Tensors one after the other.
    CAT "cat" "the inputs one after the other along dim" MANY [Attribute::int("dim", 0)]
        cat_outputs, cat_reference, cat_backward, vec![
            Profile::new("first").normal(&[2, 5]).normal(&[3, 5]).normal(&[1, 5]),
            Profile::new("last").normal(&[3, 4]).with(Sample::normal(&[3, 7]).strided()).attributes(dim(-1)),
        ];
    /// Tensors along a new dimension.
    STACK "stack" "the inputs side by side along a new dimension dim" MANY [Attribute::int("dim", 0)]
        stack_outputs, stack_reference, stack_backward, vec![
            Profile::new("first").normal(&[3, 5]).normal(&[3, 5]),
            Profile::new("last").normal(&[3, 5]).normal(&[3, 5]).normal(&[3, 5]).attributes(dim(-1)),
        ];
    /// Parts of a tensor.
    SPLIT "split" "parts of these sizes along dim" ONE [Attribute::int("dim", 0), Attribute::required("sizes")]
        split_outputs, split_reference, split_backward, vec![
            Profile::new("last").normal(&[3, 9]).attributes(dim(-1).ints("sizes", &[2, 7])),
            Profile::new("first").normal(&[6, 5]).attributes(dim(0).ints("sizes", &[1, 2, 3])),
        ];
    /// A border of one value.
    PAD "pad" "pads gives, from the last dimension on, how many of `value` to put before and after" ONE
        [Attribute::required("pads"), Attribute::float("value", 0.0)]
        pad_outputs, pad_reference, pad_backward, vec![
            Profile::new("last").normal(&[3, 5]).attributes(Attributes::new().ints("pads", &[1, 2])),
            Profile::new("two").normal(&[2, 3, 5]).attributes(Attributes::new().ints("pads", &[0, 1, 2, 0])),
        ];
    /// Dimensions backwards.
    FLIP "flip" "the values of each dimension of dims in reverse order" ONE [Attribute::required("dims")]
        |q| chosen(q).and_then(|_| Ok(vec![q.like(0)?])),
        |args| {
            let (q, dims) = (args.inquiry(), chosen(&args.inquiry())?);
            let shape = q.shape(0)?;
            place(args, 0, |at| {
                dims.iter().for_each(|d| at[*d] = shape[*d] - 1 - at[*d]);
                Some(0)
            })
        },
        again,
        vec![Profile::new("two").normal(&[3, 4, 5]).attributes(Attributes::new().ints("dims", &[0, -1]))];
    /// Values pushed round.
    ROLL "roll" "the values moved up by shifts along dims; those that fall out come back in" ONE
        [Attribute::required("shifts"), Attribute::required("dims")]
        |q| match chosen(q)?.len() == q.ints("shifts")?.len() {
            true => Ok(vec![q.like(0)?]),
            false => q.fail("takes as many shifts as dims"),
        },
        |args| {
            let (q, dims) = (args.inquiry(), chosen(&args.inquiry())?);
            let (shape, shifts) = (q.shape(0)?, q.ints("shifts")?);
            place(args, 0, |at| {
                for (d, shift) in dims.iter().zip(shifts) {
                    at[*d] = (at[*d] as i64 - shift % shape[*d] as i64).rem_euclid(shape[*d] as i64) as usize;
                }
                Some(0)
            })
        },
        |b| {
            let back: Vec<i64> = b.inquiry().ints("shifts")?.iter().map(|s| -s).collect();
            b.only(b.cx.one(&ROLL, &[b.gradient()?], &b.attributes.clone().ints("shifts", &back))?)
        },
        vec![Profile::new("two").normal(&[3, 5])
            .attributes(Attributes::new().ints("shifts", &[1, -7]).ints("dims", &[0, 1]))];
    /// Copies side by side.
    REPEAT "repeat" "the tensor as many times along each dimension as times says" ONE [Attribute::required("times")]
        repeat_outputs,
        |args| {
            let shape = args.inputs[0].shape().to_vec();
            let more = args.outputs[0].shape().rank() - shape.len();
            place(args, 0, |at| {
                at.drain(..more);
                at.iter_mut().zip(&shape).for_each(|(at, dim)| *at %= dim);
                Some(0)
            })
        },
        repeat_backward,
        vec![Profile::new("more").normal(&[2, 3]).attributes(Attributes::new().ints("times", &[2, 1, 3]))];
    /// The lower triangle.
    TRIL "tril" "values up to `diagonal` above the diagonal; zeros elsewhere" ONE [Attribute::int("diagonal", 0)]
        matrices, |args| triangle(args, |row, column, diagonal| column - row <= diagonal), again, triangles();
    /// The upper triangle.
    TRIU "triu" "values from `diagonal` above the diagonal on; zeros elsewhere" ONE [Attribute::int("diagonal", 0)]
        matrices, |args| triangle(args, |row, column, diagonal| column - row >= diagonal), again, triangles();
}

/// The same op on what flows back.
fn again(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    b.only(b.cx.one(b.op, &[b.gradient()?], b.attributes)?)
}

/// Dimension `dim` of a shape of `rank` dimensions.
fn dimension(b: &Backward, rank: usize) -> Result<usize, Error> {
    Ok(b.inquiry().signed("dim")?.rem_euclid(rank.max(1) as i64) as usize)
}

fn cat_backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (g, mut start) = (b.gradient()?, 0);
    let axis = dimension(b, g.shape().rank())?;
    let part = |(i, input): (usize, &Saved)| {
        let length = input.shape().get(axis).copied().unwrap_or(0);
        let part = b.wants(i).then(|| g.narrow(axis, start, length)).transpose()?;
        start += length;
        Ok(part)
    };
    b.inputs.iter().enumerate().map(part).collect()
}

fn stack_backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let g = b.gradient()?;
    let axis = dimension(b, g.shape().rank())?;
    (0..b.inputs.len()).map(|i| Ok(b.wants(i).then(|| g.select(axis, i)).transpose()?)).collect()
}

fn split_backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let parts = b.gradients.iter().zip(b.outputs).map(|(gradient, output)| match gradient {
        Some(gradient) => Ok(gradient.clone()),
        None => crate::zeros(output.dtype(), output.shape()),
    });
    let parts = parts.collect::<Result<Vec<Tensor>, Error>>()?;
    b.only(cat(b.cx, &parts.iter().collect::<Vec<_>>(), b.inquiry().signed("dim")?)?)
}

fn pad_backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (shape, mut inner) = (b.shape(0), b.gradient()?.clone());
    for (i, [before, _]) in b.inquiry().ints("pads")?.as_chunks::<2>().0.iter().enumerate() {
        let axis = shape.len() - 1 - i;
        inner = inner.narrow(axis, *before as usize, shape[axis])?;
    }
    b.only(inner)
}

fn repeat_backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let (shape, times) = (b.shape(0), b.inquiry().ints("times")?);
    let more = times.len() - shape.len();
    // Each dimension is its copies, then its values; the copies fall together.
    let dims = std::iter::repeat_n(1, more).chain(shape.iter().copied());
    let apart: Vec<usize> = times.iter().zip(dims).flat_map(|(times, dim)| [*times as usize, dim]).collect();
    let copies: Vec<i64> = (0..times.len() as i64).map(|i| 2 * i).collect();
    let apart = b.gradient()?.contiguous()?.reshape(apart)?;
    let summed = b.cx.one(&super::SUM, &[&apart], &Attributes::new().ints("dim", &copies))?;
    b.only(summed.reshape(shape.to_vec())?)
}

fn dim(dim: i64) -> Attributes {
    Attributes::new().with("dim", crate::Value::Int(dim))
}

fn triangles() -> Vec<Profile> {
    vec![
        Profile::new("square").normal(&[5, 5]),
        Profile::new("wide").normal(&[2, 3, 7]).attributes(dim_named("diagonal", 2)),
        Profile::new("high").normal(&[7, 3]).attributes(dim_named("diagonal", -2)),
    ]
}

fn dim_named(name: &'static str, value: i64) -> Attributes {
    Attributes::new().with(name, crate::Value::Int(value))
}

/// Fills output `index`: `source` turns coordinates of the output into those of an input, and says which; where it says
/// `None`, the attribute `value` stands, or zero.
pub(super) fn place(
    args: &mut Args,
    index: usize,
    mut source: impl FnMut(&mut Vec<usize>) -> Option<usize>,
) -> Result<(), Error> {
    let inputs = args.inputs.iter().map(|t| bytes(t)).collect::<Result<Vec<_>, Error>>()?;
    let (shape, dtype) = {
        let output = &args.outputs[index];
        (output.shape().to_vec(), output.element().dtype().unwrap_or(DType::F32))
    };
    let size = dtype.size();
    let mut rest = vec![0; size];
    if let Ok(value) = args.inquiry().float("value") {
        store(dtype, std::iter::once(value), &mut rest)?;
    }
    let wrong = Error::Argument { op: args.op.name, message: "the output is shared".into() };
    let output = args.outputs[index].bytes_mut().ok_or(wrong)?;
    for (out, mut at) in output.chunks_exact_mut(size).zip(coordinates(&shape)) {
        let from = match source(&mut at) {
            Some(input) => {
                let start = flat(args.inputs[input].shape(), &at) * size;
                &inputs[input][start..start + size]
            }
            None => &rest,
        };
        out.copy_from_slice(from);
    }
    Ok(())
}

/// The values of a plain tensor, in row-major order.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; tensor.shape().values() * tensor.element().dtype().map_or(0, |d| d.size())];
    tensor.read(&mut bytes)?;
    Ok(bytes)
}

/// The dimensions of the attribute `dims`, from 0 up.
fn chosen(q: &Inquiry) -> Result<Vec<usize>, Error> {
    let shape = q.shape(0)?;
    q.ints("dims")?.iter().map(|dim| Ok(Axis::at(q, shape, *dim)?.index)).collect()
}

/// Refuses inputs of several types.
fn one_type(q: &Inquiry) -> Result<DType, Error> {
    let dtype = q.like(0)?.dtype;
    match q.inputs.iter().find(|t| t.element().dtype() != Some(dtype)) {
        Some(other) => q.fail(format!("{dtype} and {} do not go together; cast one of them", other.element().name())),
        None => Ok(dtype),
    }
}

fn cat_outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (mut shape, dtype) = (q.shape(0)?.to_vec(), one_type(q)?);
    let axis = Axis::of(q, &shape, "dim")?.index;
    for other in &q.inputs[1..] {
        let mut same = other.shape().to_vec();
        if same.len() != shape.len() {
            return q.fail(format!("{:?} does not go behind {shape:?}", other.shape()));
        }
        let length = std::mem::replace(&mut same[axis], shape[axis]);
        if same != shape {
            return q.fail(format!("{:?} does not go behind {shape:?}", other.shape()));
        }
        shape[axis] += length;
    }
    Ok(vec![OutputSpec::new(dtype, shape)])
}

fn cat_reference(args: &mut Args) -> Result<(), Error> {
    let (q, inputs) = (args.inquiry(), args.inputs);
    let axis = Axis::of(&q, q.shape(0)?, "dim")?.index;
    place(args, 0, |at| {
        let mut input = 0;
        while at[axis] >= inputs[input].shape().dims()[axis] {
            at[axis] -= inputs[input].shape().dims()[axis];
            input += 1;
        }
        Some(input)
    })
}

fn new_axis(q: &Inquiry) -> Result<usize, Error> {
    let mut longer = q.shape(0)?.to_vec();
    longer.push(1);
    Ok(Axis::of(q, &longer, "dim")?.index)
}

fn stack_outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (mut shape, dtype, axis) = (q.shape(0)?.to_vec(), one_type(q)?, new_axis(q)?);
    if let Some(other) = q.inputs.iter().find(|t| t.shape().dims() != shape) {
        return q.fail(format!("{:?} cannot be stacked on {shape:?}", other.shape()));
    }
    shape.insert(axis, q.inputs.len());
    Ok(vec![OutputSpec::new(dtype, shape)])
}

fn stack_reference(args: &mut Args) -> Result<(), Error> {
    let axis = new_axis(&args.inquiry())?;
    place(args, 0, |at| Some(at.remove(axis)))
}

fn split_outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (like, sizes) = (q.like(0)?, q.ints("sizes")?);
    let axis = Axis::of(q, &like.shape, "dim")?;
    if sizes.iter().any(|s| *s < 0) || sizes.iter().map(|s| i128::from(*s)).sum::<i128>() != axis.length as i128 {
        return q.fail(format!("parts of {sizes:?} do not make up {} values", axis.length));
    }
    let part = |size: &i64| {
        let mut shape = like.shape.clone();
        shape[axis.index] = *size as usize;
        OutputSpec::new(like.dtype, shape)
    };
    Ok(sizes.iter().map(part).collect())
}

fn split_reference(args: &mut Args) -> Result<(), Error> {
    let (q, mut begin) = (args.inquiry(), 0);
    let axis = Axis::of(&q, q.shape(0)?, "dim")?.index;
    for (index, size) in q.ints("sizes")?.iter().enumerate() {
        place(args, index, |at| {
            at[axis] += begin;
            Some(0)
        })?;
        begin += *size as usize;
    }
    Ok(())
}

/// How many values stand before and after, for each dimension from the first on.
fn pads(q: &Inquiry) -> Result<Vec<(usize, usize)>, Error> {
    let (rank, pads) = (q.shape(0)?.len(), q.ints("pads")?);
    let (pairs, rest) = pads.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > rank || pads.iter().any(|p| !(0..=1 << 40).contains(p)) {
        return q.fail(format!("{pads:?} are not pairs of numbers from 0 up for the last of {rank} dimensions"));
    }
    let mut all = vec![(0, 0); rank - pairs.len()];
    all.extend(pairs.iter().rev().map(|[before, after]| (*before as usize, *after as usize)));
    Ok(all)
}

fn pad_outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let like = q.like(0)?;
    let shape = like.shape.iter().zip(pads(q)?).map(|(dim, (before, after))| dim + before + after);
    Ok(vec![OutputSpec::new(like.dtype, shape.collect::<Vec<_>>())])
}

fn pad_reference(args: &mut Args) -> Result<(), Error> {
    let (pads, shape) = (pads(&args.inquiry())?, args.inputs[0].shape().to_vec());
    place(args, 0, |at| {
        for ((at, (before, _)), dim) in at.iter_mut().zip(&pads).zip(&shape) {
            *at = at.checked_sub(*before).filter(|at| at < dim)?;
        }
        Some(0)
    })
}

fn repeat_outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let (like, times) = (q.like(0)?, q.ints("times")?);
    let Some(more) = times.len().checked_sub(like.shape.len()).filter(|_| times.iter().all(|t| *t >= 0)) else {
        return q.fail(format!("times {times:?} do not say how often to repeat each dimension of {:?}", like.shape));
    };
    let dims = std::iter::repeat_n(1, more).chain(like.shape.iter().copied());
    let shape: Option<Vec<usize>> = dims.zip(times).map(|(dim, t)| dim.checked_mul(*t as usize)).collect();
    match shape {
        Some(shape) => Ok(vec![OutputSpec::new(like.dtype, shape)]),
        None => q.fail("the result is too large"),
    }
}

fn matrices(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    if q.shape(0)?.len() < 2 {
        q.fail(format!("expected matrices, found {:?}", q.shape(0)?))
    } else {
        Ok(vec![q.like(0)?])
    }
}

fn triangle(args: &mut Args, inside: fn(i64, i64, i64) -> bool) -> Result<(), Error> {
    let diagonal = args.inquiry().signed("diagonal")?;
    place(args, 0, |at| {
        let (row, column) = (at[at.len() - 2] as i64, at[at.len() - 1] as i64);
        inside(row, column, diagonal).then_some(0)
    })
}

/// See [`CAT`]; `dim` counts from the last where it is negative.
pub fn cat(cx: &Context, inputs: &[&Tensor], along: i64) -> Result<Tensor, Error> {
    cx.one(&CAT, inputs, &dim(along))
}

/// See [`STACK`].
pub fn stack(cx: &Context, inputs: &[&Tensor], along: i64) -> Result<Tensor, Error> {
    cx.one(&STACK, inputs, &dim(along))
}

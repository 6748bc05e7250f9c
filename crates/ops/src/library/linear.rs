//! Products with weight matrices, plain or packed.

use windlass_tensor::{DType, Tensor};

use super::matmul;
use crate::args::numbers;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Backward, Context, Error, Gradient, Op, Reads, Tolerance};

/// Whether activations stay floats where weights are packed; else they may be rounded to 8 bits, which is faster.
const EXACT: Attribute = Attribute::bool("exact", false);

/// One input times several matrices: queries, keys and values, or both halves of a gated block, read it once.
pub static LINEAR: Op = Op {
    name: "linear",
    about: "x times the transpose of each weight matrix",
    inputs: &[Input::new("x"), Input::many("weights")],
    attributes: &[EXACT],
    outputs,
    reference,
    // Packed weights are multiplied by activations of 8 bits, as every fast kernel does.
    gradient: Gradient::rule(|_, input| if input == 0 { Reads::inputs_from(1) } else { Reads::input(0) }, backward),
    // Rounded activations err by a few thousandths (one sigma) in the longest profile; all its values are within 7 sigma.
    tolerance: Tolerance { relative: 2e-2, absolute: 3e-2 },
    profiles: |_| {
        vec![
            Profile::new("vector").normal(&[1, 512]).with(Sample::weight(&[33, 512])),
            Profile::new("rows").normal(&[5, 512]).with(Sample::weight(&[17, 512])).with(Sample::weight(&[8, 512])),
            Profile::new("odd").normal(&[3, 67]).with(Sample::weight(&[5, 67])),
            Profile::new("matrix").normal(&[65, 1024]).with(Sample::weight(&[97, 1024])),
            Profile::new("exact")
                .normal(&[13, 512])
                .with(Sample::weight(&[40, 512]))
                .attributes(Attributes::new().bool("exact", true)),
        ]
    },
};

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let x = q.shape(0)?;
    let Some((inside, outer)) = x.split_last() else { return q.fail("x is a single number") };
    let output = |(i, weight): (usize, &&Tensor)| {
        let [rows, columns] = weight.shape()[..] else {
            return q.fail(format!("weight {i} must be a matrix, not {:?}", weight.shape()));
        };
        if columns != *inside {
            return q.fail(format!("weight {i} has rows of {columns} values, x has rows of {inside}"));
        }
        let mut shape = outer.to_vec();
        shape.push(rows);
        Ok(OutputSpec::new(wide(q.input(0)?), shape))
    };
    if q.inputs.len() < 2 {
        return q.fail("takes at least one weight matrix");
    }
    q.inputs[1..].iter().enumerate().map(output).collect()
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let x = args.numbers(0)?;
    for (i, weight) in args.inputs[1..].iter().enumerate() {
        let weight = numbers(args.op, weight)?;
        let inside = args.inputs[0].shape().columns().max(1);
        let dot = |row: &[f64], w: &[f64]| -> f64 { row.iter().zip(w).map(|(x, w)| x * w).sum() };
        let values = x.chunks_exact(inside).flat_map(|row| weight.chunks_exact(inside).map(move |w| dot(row, w)));
        args.write_numbers(i, &values.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// F64 for an input of that type, else F32.
pub(super) fn wide(x: &Tensor) -> DType {
    if x.element().dtype() == Some(DType::F64) { DType::F64 } else { DType::F32 }
}

fn backward(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let mut all: Vec<Option<Tensor>> = vec![None; b.inputs.len()];
    for (i, gradient) in b.gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        if b.wants(0) {
            let flowed = linear_transposed(b.cx, gradient, b.input(i + 1)?, all[0].as_ref())?;
            all[0] = Some(flowed);
        }
        if b.wants(i + 1) {
            all[i + 1] = Some(of_weights(b.cx, gradient, b.input(0)?)?);
        }
    }
    Ok(all)
}

/// What flows back to the weights of a linear map, of what flows back to its results, and its input.
pub(super) fn of_weights(cx: &Context, gradient: &Tensor, x: &Tensor) -> Result<Tensor, Error> {
    let matrix = |t: &Tensor| -> Result<Tensor, Error> {
        let columns = t.shape().columns();
        Ok(t.contiguous()?.reshape([t.shape().values() / columns.max(1), columns])?)
    };
    let (gradient, x) = (matrix(gradient)?, matrix(x)?);
    // The wider one stands on the right, where rows are read as they lie.
    match x.shape().columns() < gradient.shape().columns() {
        true => Ok(matmul(cx, &x.transpose(0, 1)?, &gradient)?.transpose(0, 1)?.contiguous()?),
        false => matmul(cx, &gradient.transpose(0, 1)?, &x),
    }
}

/// One input times a matrix as it stands: what flows back through [`LINEAR`].
pub static LINEAR_TRANSPOSED: Op = Op {
    name: "linear_transposed",
    about: "x times the weight matrix, plus `plus` where it is given",
    inputs: &[Input::new("x"), Input::packed("weight"), Input::optional("plus")],
    attributes: &[],
    outputs: |q| {
        let (x, weight) = (q.shape(0)?, q.shape(1)?);
        let ([outer @ .., inside], [rows, columns]) = (x, weight) else {
            return q.fail(format!("expected x [.., rows] and a matrix, found {x:?} and {weight:?}"));
        };
        if inside != rows {
            return q.fail(format!("the weight has {rows} rows, x has rows of {inside} values"));
        }
        let mut shape = outer.to_vec();
        shape.push(*columns);
        if q.inputs.get(2).is_some_and(|plus| plus.shape().dims() != shape) {
            return q.fail(format!("plus must be {shape:?}, not {:?}", q.shape(2)?));
        }
        Ok(vec![OutputSpec::new(wide(q.input(0)?), shape)])
    },
    reference: |args| {
        let (x, weight) = (args.numbers(0)?, args.numbers(1)?);
        let (inside, columns) = (args.inputs[1].shape().rows(), args.inputs[1].shape().columns());
        let mut y = if args.inputs.len() > 2 { args.numbers(2)? } else { vec![0.0; args.outputs[0].shape().values()] };
        for (row, y) in x.chunks_exact(inside.max(1)).zip(y.chunks_exact_mut(columns.max(1))) {
            for (x, weight) in row.iter().zip(weight.chunks_exact(columns.max(1))) {
                y.iter_mut().zip(weight).for_each(|(y, w)| *y += x * w);
            }
        }
        args.write_numbers(0, &y)
    },
    gradient: Gradient::Refused("it is the gradient of `linear` itself"),
    tolerance: Tolerance { relative: 1e-4, absolute: 1e-4 },
    profiles: |_| {
        vec![
            Profile::new("vector").normal(&[1, 33]).with(Sample::weight(&[33, 512])),
            Profile::new("plus").normal(&[5, 17]).with(Sample::weight(&[17, 512])).normal(&[5, 512]),
            Profile::new("odd").normal(&[3, 5]).with(Sample::weight(&[5, 67])),
            Profile::new("matrix").normal(&[65, 97]).with(Sample::weight(&[97, 1024])),
        ]
    },
};

/// See [`LINEAR_TRANSPOSED`]: `x` `[.., rows]` times `weight` `[rows, columns]`, plain or packed.
pub fn linear_transposed(cx: &Context, x: &Tensor, weight: &Tensor, plus: Option<&Tensor>) -> Result<Tensor, Error> {
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(plus).collect();
    cx.one(&LINEAR_TRANSPOSED, &inputs, &Attributes::NONE)
}

/// `x` `[.., columns]` (F32) times the transpose of `weight` `[rows, columns]`, plain or packed; gives F32 `[.., rows]`.
pub fn linear(cx: &Context, x: &Tensor, weight: &Tensor) -> Result<Tensor, Error> {
    cx.one(&LINEAR, &[x, weight], &Attributes::NONE)
}

/// As [`linear`], for several matrices.
pub fn linears<const N: usize>(cx: &Context, x: &Tensor, weights: [&Tensor; N]) -> Result<[Tensor; N], Error> {
    let mut inputs = vec![x];
    inputs.extend(weights);
    let outputs = cx.call(&LINEAR, &inputs, &Attributes::NONE)?;
    outputs
        .try_into()
        .map_err(|_| Error::Argument { op: LINEAR.name, message: "gave another number of outputs".into() })
}

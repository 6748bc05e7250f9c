//! Products with weight matrices, plain or packed.

use windlass_tensor::{DType, Tensor};

use crate::args::f32s;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attributes, Context, Error, Gradient, Op, Tolerance};

/// One input times several matrices: queries, keys and values, or both halves of a gated block, read it once.
pub static LINEAR: Op = Op {
    name: "linear",
    about: "x times the transpose of each weight matrix",
    inputs: &[Input::new("x"), Input::many("weights")],
    attributes: &[],
    outputs,
    reference,
    // Packed weights are multiplied by activations of 8 bits, as every fast kernel does.
    gradient: Gradient::Stops,
    tolerance: Tolerance { relative: 2e-2, absolute: 2e-2 },
    profiles: |_| {
        vec![
            Profile::new("vector").normal(&[1, 512]).with(Sample::weight(&[33, 512])),
            Profile::new("rows").normal(&[5, 512]).with(Sample::weight(&[17, 512])).with(Sample::weight(&[8, 512])),
            Profile::new("odd").normal(&[3, 67]).with(Sample::weight(&[5, 67])),
            Profile::new("matrix").normal(&[65, 1024]).with(Sample::weight(&[97, 1024])),
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
        Ok(OutputSpec::new(DType::F32, shape))
    };
    if q.inputs.len() < 2 {
        return q.fail("takes at least one weight matrix");
    }
    q.inputs[1..].iter().enumerate().map(output).collect()
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let x = args.f32s(0)?;
    for (i, weight) in args.inputs[1..].iter().enumerate() {
        let weight = f32s(args.op, weight)?;
        let inside = args.inputs[0].shape().columns().max(1);
        let dot = |row: &[f32], w: &[f32]| -> f32 {
            row.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
        };
        let values = x.chunks_exact(inside).flat_map(|row| weight.chunks_exact(inside).map(move |w| dot(row, w)));
        args.write(i, &values.collect::<Vec<_>>())?;
    }
    Ok(())
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

//! Picking values.

use windlass_tensor::{DType, Tensor};

use crate::library::row_profiles;
use crate::op::{Input, OutputSpec};
use crate::{Args, Attributes, Context, Error, Gradient, Op, Tolerance};

/// Where the largest value of each row stands.
pub static ARGMAX: Op = Op {
    name: "argmax",
    about: "the first place of the largest value of each row",
    inputs: &[Input::new("x")],
    attributes: &[],
    outputs: |q| {
        let Some((_, outer)) = q.shape(0)?.split_last() else { return q.fail("x is a single number") };
        Ok(vec![OutputSpec::new(DType::I64, outer)])
    },
    reference: |args: &mut Args| {
        let x = args.f32s(0)?;
        let first = |row: &[f32]| row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best });
        let places: Vec<i64> =
            x.chunks_exact(args.inputs[0].shape().columns().max(1)).map(|row| first(row) as i64).collect();
        let bytes = args.outputs[0].bytes_mut();
        let wrong = Error::Argument { op: "argmax", message: "the output is shared".into() };
        bytes.ok_or(wrong)?.copy_from_slice(bytemuck::cast_slice(&places));
        Ok(())
    },
    gradient: Gradient::Stops,
    tolerance: Tolerance::EXACT,
    profiles: |_| row_profiles(),
};

/// See [`ARGMAX`]; gives I64.
pub fn argmax(cx: &Context, x: &Tensor) -> Result<Tensor, Error> {
    cx.one(&ARGMAX, &[x], &Attributes::NONE)
}

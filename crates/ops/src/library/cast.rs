//! Casts between element types.

use windlass_tensor::{DType, Tensor};

use crate::op::{Input, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Reads, Saved, Tolerance};

/// Values in another plain type; packed ones are decoded.
pub static CAST: Op = Op {
    name: "cast",
    about: "the values in another plain type, rounded to nearest even",
    inputs: &[Input::packed("x")],
    attributes: &[Attribute::required("to")],
    outputs: |q| {
        let name = q.text("to")?;
        let Some(dtype) = DType::from_name(name) else { return q.fail(format!("no type is called {name:?}")) };
        Ok(vec![OutputSpec::new(dtype, q.shape(0)?)])
    },
    reference: |args: &mut Args| {
        let values = args.f32s(0)?;
        args.write(0, &values)
    },
    gradient: Gradient::rule(
        |_, _| Reads::NOTHING,
        |b| match b.inputs.first().map(Saved::dtype) {
            Some(dtype) if dtype.is_float() => b.only(cast(b.cx, b.gradient()?, dtype)?),
            _ => Ok(vec![None]),
        },
    ),
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let to = |name| Attributes::new().text("to", name);
        vec![
            Profile::new("to f16").with(Sample::weight(&[3, 512])).attributes(to("F16")),
            Profile::new("to f32").with(Sample::weight(&[2, 1024])).attributes(to("F32")),
        ]
    },
};

/// See [`CAST`]; a tensor that has the type already is returned as it is.
pub fn cast(cx: &Context, x: &Tensor, to: DType) -> Result<Tensor, Error> {
    if x.element().dtype() == Some(to) {
        return Ok(x.clone());
    }
    cx.one(&CAST, &[x], &Attributes::new().text("to", to.name()))
}

//! Packing values in a scheme.

use windlass_quant::Packing;
use windlass_tensor::{DType, Tensor};

use crate::op::{Input, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Tolerance};

/// Values in a scheme, as the library that defines it packs them. `cast` is the way back.
pub static QUANTIZE: Op = Op {
    name: "quantize",
    about: "the rows of x packed in the scheme `to`",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::required("to")],
    outputs: |q| {
        let scheme = windlass_quant::scheme(q.text("to")?).map_err(|e| quant(e, q.op.name))?;
        let (shape, columns) = (q.shape(0)?, q.input(0)?.shape().columns());
        if shape.len() < 2 || !columns.is_multiple_of(scheme.block()) {
            return q.fail(format!("{} packs rows of blocks of {}, not {shape:?}", scheme.name(), scheme.block()));
        }
        if !scheme.can_encode() || matches!(scheme.importance(), windlass_quant::Importance::Required) {
            return q.fail(format!("{} cannot be written from values alone", scheme.name()));
        }
        Ok(vec![OutputSpec::packed(scheme, shape)])
    },
    reference,
    gradient: Gradient::Stops,
    tolerance: Tolerance::EXACT,
    profiles: |_| {
        let to = |name: &'static str| {
            Profile::new(name).with(Sample::normal(&[5, 512])).attributes(Attributes::new().text("to", name))
        };
        vec![to("q8_0"), to("q4_0"), to("q4_k"), to("nf4"), to("mlx4-g64"), to("int8"), to("nf4-dq")]
    },
};

fn reference(args: &mut Args) -> Result<(), Error> {
    let (x, op) = (args.f32s(0)?, args.op.name);
    let columns = args.inputs[0].shape().columns();
    let from = args.inputs[0].element().dtype().unwrap_or(DType::F32);
    let fail = |message: &str| Error::Argument { op, message: message.into() };
    let packing = packing(&args.outputs[0]).ok_or_else(|| fail("the output is not packed"))?;
    let mut planes = args.outputs[0].planes_mut().ok_or_else(|| fail("the output is shared"))?;
    if packing.scheme.tallies() {
        packing.scheme.begin(&packing.scheme.tally(&x, columns, from), &mut planes);
    }
    packing.scheme.encode(&x, columns, None, source(packing, from), &mut planes).map_err(|e| quant(e, op))
}

/// The scheme of a packed tensor, if it is one of ours.
pub fn packing(tensor: &Tensor) -> Option<Packing> {
    match tensor.element() {
        windlass_tensor::Element::Packed(layout) => layout.as_any().downcast_ref::<Packing>().copied(),
        windlass_tensor::Element::Plain(_) => None,
    }
}

/// The type that an encoder is told: that of its planes where they follow it, else that of the values.
pub fn source(packing: Packing, from: DType) -> DType {
    let follows = packing.scheme.planes().iter().any(|plane| plane.element == windlass_quant::PlaneType::Float);
    if follows { packing.float } else { from }
}

fn quant(source: windlass_quant::Error, op: &'static str) -> Error {
    Error::Quant { op, source }
}

/// Packs the rows of `x` `[.., columns]` in the scheme of this name.
pub fn quantize(cx: &Context, x: &Tensor, scheme: &str) -> Result<Tensor, Error> {
    let scheme = windlass_quant::scheme(scheme).map_err(|e| quant(e, QUANTIZE.name))?;
    cx.one(&QUANTIZE, &[x], &Attributes::new().text("to", scheme.name()))
}

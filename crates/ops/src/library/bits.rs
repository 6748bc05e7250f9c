//! Bits of whole numbers and of truths.

use windlass_tensor::DType;

use crate::elementwise::common_shape;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Fill, Kind, Profile, Sample};
use crate::{Args, Error, Gradient, Op, Tolerance};

/// Ops of two inputs: constant, name, formula, function.
macro_rules! bitwise {
    ($($(#[$doc:meta])* $id:ident $name:literal $about:literal $f:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: $about,
                inputs: &[Input::new("x"), Input::new("y")],
                attributes: &[],
                outputs,
                reference: |args| two(args, $f),
                gradient: Gradient::Stops,
                tolerance: Tolerance::EXACT,
                profiles: |_| profiles(2),
            };
        )*
    };
}

bitwise! {
    /// The bits that both have.
    BITWISE_AND "bitwise_and" "the bits that x and y both have" |x, y| x & y;
    /// The bits that one has, or both.
    BITWISE_OR "bitwise_or" "the bits that x or y has" |x, y| x | y;
    /// The bits that one of the two has.
    BITWISE_XOR "bitwise_xor" "the bits that one of x and y has" |x, y| x ^ y;
}

/// The bits that are not there.
pub static BITWISE_NOT: Op = Op {
    name: "bitwise_not",
    about: "the bits that x has not; of truths, the other one",
    inputs: &[Input::new("x")],
    attributes: &[],
    outputs,
    reference: |args| {
        let truth = args.inputs[0].element().dtype() == Some(DType::Bool);
        let values: Vec<i64> = args.ints(0)?.into_iter().map(|x| if truth { i64::from(x == 0) } else { !x }).collect();
        write(args, &values)
    },
    gradient: Gradient::Stops,
    tolerance: Tolerance::EXACT,
    profiles: |_| profiles(1),
};

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let dtype = q.like(0)?.dtype;
    let same = q.inputs.iter().all(|x| x.element().dtype() == Some(dtype));
    let shapes: Vec<&[usize]> = q.inputs.iter().map(|x| x.shape().dims()).collect();
    match common_shape(&shapes) {
        _ if dtype.is_float() || !same => q.fail("takes whole numbers or truths of one type"),
        Some(shape) => Ok(vec![OutputSpec::new(dtype, shape)]),
        None => q.fail(format!("{shapes:?} cannot be stretched to one shape")),
    }
}

fn two(args: &mut Args, f: fn(i64, i64) -> i64) -> Result<(), Error> {
    let shape = args.outputs[0].shape().to_vec();
    let stretched = |i: usize| -> Result<Vec<i64>, Error> {
        let x = args.inputs[i].broadcast_to(shape.clone())?.contiguous()?;
        Args { inputs: &[&x], op: args.op, attributes: args.attributes, outputs: &mut [], session: args.session }
            .ints(0)
    };
    let (x, y) = (stretched(0)?, stretched(1)?);
    let values: Vec<i64> = x.into_iter().zip(y).map(|(x, y)| f(x, y)).collect();
    write(args, &values)
}

/// Without a detour through floats, which do not hold all bits.
fn write(args: &mut Args, values: &[i64]) -> Result<(), Error> {
    let op = args.op.name;
    let dtype = args.outputs[0].element().dtype().unwrap_or(DType::I64);
    let shared = || Error::Argument { op, message: "the output is shared".into() };
    let bytes = args.outputs[0].bytes_mut().ok_or_else(shared)?;
    for (out, value) in bytes.chunks_exact_mut(dtype.size()).zip(values) {
        out.copy_from_slice(&value.to_le_bytes()[..dtype.size()]);
    }
    Ok(())
}

fn profiles(inputs: usize) -> Vec<Profile> {
    let of = |dtype, below| Sample::normal(&[3, 17]).fill(Fill::Below(below)).kind(Kind::Fixed(dtype));
    let all = |name, dtype, below| (0..inputs).fold(Profile::new(name), |profile, _| profile.with(of(dtype, below)));
    vec![all("bytes", DType::U8, 256), all("long", DType::I64, 1 << 20), all("truths", DType::Bool, 2)]
}

//! Elementwise ops: every one is a row of a table, its kernels come from its expression.

use std::collections::HashMap;
use std::sync::OnceLock;

use windlass_tensor::{DType, Tensor};

use crate::args::numbers;
use crate::attributes::{Attribute, Value};
use crate::op::{Input, Inquiry, Op, OutputSpec, Tolerance};
use crate::survey::{Fill, Profile, Sample};
use crate::{Args, Error, Gradient};

mod backward;
mod derivative;
mod expr;
mod table;

pub use derivative::{derivative, derivatives};
pub use expr::{Binary, Expr, Unary};

/// An elementwise op.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// The formula.
    pub about: &'static str,
    /// One to four; they are stretched to a common shape.
    pub inputs: usize,
    /// Attributes with their defaults.
    pub parameters: &'static [(&'static str, f64)],
    pub gives: Gives,
    pub expr: Expr,
}

/// The type of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// That of the inputs.
    Same,
    /// Bool.
    Truth,
}

/// Every elementwise op, in the order of the table.
pub fn ops() -> &'static [Op] {
    static OPS: OnceLock<Vec<Op>> = OnceLock::new();
    OPS.get_or_init(|| table::ROWS.iter().map(|row| op(row, backward::gradient(row), tolerance(row))).collect())
}

/// The ops that gradients of elementwise ops flow through.
pub fn gradients() -> &'static [Op] {
    static OPS: OnceLock<Vec<Op>> = OnceLock::new();
    OPS.get_or_init(|| backward::rows().map(|row| op(row, backward::REFUSED, backward::TOLERANCE)).collect())
}

/// The elementwise ops and those of their gradients.
pub fn all() -> impl Iterator<Item = &'static Op> {
    ops().iter().chain(gradients())
}

/// The row of an op, if it is elementwise.
pub fn row(op: &str) -> Option<&'static Row> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Row>> = OnceLock::new();
    BY_NAME
        .get_or_init(|| table::ROWS.iter().chain(backward::rows()).map(|row| (row.name, row)).collect())
        .get(op)
        .copied()
}

/// The parameters of a call.
pub fn parameters(row: &Row, inquiry: &Inquiry) -> Result<Vec<f64>, Error> {
    row.parameters.iter().map(|(name, _)| inquiry.float(name)).collect()
}

/// The shape that all shapes can be stretched to: dimensions agree from the last on, or one of them is 1.
pub fn common_shape(shapes: &[&[usize]]) -> Option<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut common = vec![1; rank];
    for shape in shapes {
        for (to, from) in common[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*to, *from) {
                (a, b) if a == b || b == 1 => {}
                (1, b) => *to = b,
                _ => return None,
            }
        }
    }
    Some(common)
}

/// What single precision allows a row.
fn tolerance(row: &Row) -> Tolerance {
    match row.name {
        // The exponential of a polynomial has the rounding error of that, times its size.
        "gelu_tanh" | "geglu_tanh" => Tolerance { relative: 1e-5, ..Tolerance::ELEMENTWISE },
        // The same of a square.
        "geglu" => Tolerance { relative: 4e-6, ..Tolerance::ELEMENTWISE },
        // A step between two numbers of opposite signs has their rounding error, however small it ends.
        "lerp" => Tolerance { absolute: 3e-7, ..Tolerance::ELEMENTWISE },
        _ => Tolerance::ELEMENTWISE,
    }
}

fn op(row: &'static Row, gradient: Gradient, tolerance: Tolerance) -> Op {
    const INPUTS: [Input; 4] = [Input::new("x"), Input::new("y"), Input::new("z"), Input::new("w")];
    let attributes =
        row.parameters.iter().map(|(name, default)| Attribute { name, default: Some(Value::Float(*default)) });
    Op {
        name: row.name,
        about: row.about,
        inputs: &INPUTS[..row.inputs],
        attributes: Box::leak(attributes.collect::<Vec<_>>().into_boxed_slice()),
        outputs,
        reference,
        gradient,
        tolerance,
        profiles,
    }
}

/// Sizes around the strips of vectors, views, shapes that stretch, and values at the borders of the range.
fn profiles(op: &Op) -> Vec<Profile> {
    let with = |name, make: &dyn Fn(usize) -> Sample| {
        (0..op.inputs.len()).fold(Profile::new(name), |profile, i| {
            // The condition of `where`.
            let sample = make(i);
            profile.with(if op.name.starts_with("where") && i == 0 { sample.fill(Fill::Below(2)) } else { sample })
        })
    };
    let mut profiles = vec![
        with("one", &|_| Sample::normal(&[1])),
        with("odd", &|_| Sample::normal(&[3, 171])),
        // Two extremes that meet cancel in any precision.
        with("extremes", &|i| Sample::normal(&[260]).fill(if i == 0 { Fill::Extremes } else { Fill::Normal(1.0) })),
        with("views", &|_| Sample::normal(&[5, 33]).strided()),
        with("empty", &|_| Sample::normal(&[0, 4])),
        with("long", &|_| Sample::normal(&[9001])),
    ];
    // Sums of extremes cancel in any precision; products do not.
    let products =
        table::ROWS.iter().any(|row| row.name == op.name && matches!(row.expr, Expr::Binary(Binary::Mul, ..)));
    if products && op.inputs.len() > 1 {
        profiles.push(with("extremes that meet", &|_| Sample::normal(&[2 * 26 * 26]).fill(Fill::Extremes)));
    }
    if op.inputs.len() > 1 {
        profiles.insert(4, with("stretched", &|i| Sample::normal(if i % 2 == 0 { &[4, 1, 33] } else { &[17, 33] })));
        profiles.insert(4, with("a row for all", &|i| Sample::normal(if i == 0 { &[7, 65] } else { &[65] })));
    }
    profiles
}

fn outputs(inquiry: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let shapes: Vec<&[usize]> = inquiry.inputs.iter().map(|t| t.shape().dims()).collect();
    let Some(shape) = common_shape(&shapes) else {
        return inquiry.fail(format!("shapes {shapes:?} do not go together"));
    };
    let gives = row(inquiry.op.name).map_or(Gives::Same, |row| row.gives);
    // The condition of `where` has a type of its own.
    let values = if inquiry.op.name.starts_with("where") { &inquiry.inputs[1..] } else { inquiry.inputs };
    let mut dtype = values.first().and_then(|t| t.element().dtype()).unwrap_or(DType::F32);
    for other in values.iter().filter_map(|t| t.element().dtype()) {
        dtype = match (dtype, other) {
            (a, b) if a == b => a,
            (DType::F32, b) if b.is_float() && b.size() < 4 => DType::F32,
            (a, DType::F32) if a.is_float() && a.size() < 4 => DType::F32,
            (a, b) => return inquiry.fail(format!("{a} and {b} do not go together; cast one of them")),
        };
    }
    Ok(vec![OutputSpec::new(if gives == Gives::Truth { DType::Bool } else { dtype }, shape)])
}

fn reference(args: &mut Args) -> Result<(), Error> {
    let Some(row) = row(args.op.name) else { return args.inquiry().fail("is not elementwise") };
    let shape = args.outputs[0].shape().to_vec();
    let parameters = parameters(row, &args.inquiry())?;
    let stretched =
        args.inputs.iter().map(|t| Ok(t.broadcast_to(shape.clone())?)).collect::<Result<Vec<Tensor>, Error>>()?;
    let inputs = stretched.iter().map(|t| numbers(args.op, t)).collect::<Result<Vec<_>, Error>>()?;
    let value = |i: usize| {
        let x = [0, 1, 2, 3].map(|k| inputs.get(k).map_or(0.0, |input| input[i]));
        row.expr.evaluate(&x, &parameters)
    };
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    args.write_numbers(0, &values)
}

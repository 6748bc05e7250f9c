//! The gradients of elementwise ops: for each input an elementwise op that multiplies what flows back with the
//! derivative. `swiglu_dx` is the one of `swiglu` for its first input.

use std::collections::HashMap;
use std::sync::OnceLock;

use windlass_tensor::Tensor;

use super::{Expr, Gives, Row, derivative, table};
use crate::{Backward, Error, Gradient, Op, Reads, Tolerance};

/// The gradient of an elementwise op.
pub(super) fn gradient(row: &Row) -> Gradient {
    if row.gives == Gives::Truth { Gradient::Stops } else { Gradient::rule(reads, rule) }
}

/// The gradient of such a gradient.
pub(super) const REFUSED: Gradient = Gradient::Refused("it is a gradient itself");

/// Derivatives are sums where the op is one term.
pub(super) const TOLERANCE: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-6 };

/// How a gradient flows on to one input.
enum Flow {
    /// Not at all.
    Stops,
    /// As it is.
    Passes,
    /// Through an op of the inputs that are named here, and of the gradient.
    Through(Box<Row>, Vec<usize>),
}

/// The rows of the ops that gradients flow through.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    table::ROWS.iter().flat_map(|row| flows(row.name)).filter_map(|flow| match flow {
        Flow::Through(row, _) => Some(&**row),
        _ => None,
    })
}

fn flows(op: &str) -> &'static [Flow] {
    static BY_NAME: OnceLock<HashMap<&'static str, Vec<Flow>>> = OnceLock::new();
    let make = || {
        let all = |row: &'static Row| (row.name, (0..row.inputs as u8).map(|input| flow(row, input)).collect());
        table::ROWS.iter().map(all).collect()
    };
    BY_NAME.get_or_init(make).get(op).map_or(&[], Vec::as_slice)
}

fn flow(row: &'static Row, input: u8) -> Flow {
    let derived = derivative(&row.expr, input);
    match derived {
        Expr::Constant(0.0) => return Flow::Stops,
        Expr::Constant(1.0) => return Flow::Passes,
        _ => {}
    }
    let mut uses = Vec::new();
    let derived = renumber(&derived, &mut uses);
    let name: &'static str = format!("{}_d{}", row.name, ['x', 'y', 'z'][usize::from(input)]).leak();
    let about: &'static str = format!("the gradient of {} with respect to input {input}", row.name).leak();
    let gradient = Box::leak(Box::new(Expr::Input(uses.len() as u8)));
    let expr = Expr::Binary(super::Binary::Mul, Box::leak(Box::new(derived)), gradient);
    let row = Row { name, about, inputs: uses.len() + 1, parameters: row.parameters, gives: Gives::Same, expr };
    Flow::Through(Box::new(row), uses)
}

/// The expression with its inputs numbered in the order of `uses`, to which new ones are added.
fn renumber(expr: &Expr, uses: &mut Vec<usize>) -> Expr {
    let mut keep = |expr: &Expr| -> &'static Expr { Box::leak(Box::new(renumber(expr, uses))) };
    match expr {
        Expr::Input(i) => {
            let input = usize::from(*i);
            let known = uses.iter().position(|use_| *use_ == input);
            Expr::Input(known.unwrap_or_else(|| {
                uses.push(input);
                uses.len() - 1
            }) as u8)
        }
        Expr::Parameter(_) | Expr::Constant(_) => *expr,
        Expr::Unary(f, p) => Expr::Unary(*f, keep(p)),
        Expr::Binary(f, p, q) => Expr::Binary(*f, keep(p), keep(q)),
        Expr::Select(c, t, e) => Expr::Select(keep(c), keep(t), keep(e)),
    }
}

fn reads(op: &Op, input: usize) -> Reads {
    match flows(op.name).get(input) {
        Some(Flow::Through(_, uses)) => uses.iter().fold(Reads::NOTHING, |reads, i| reads.and(Reads::input(*i))),
        _ => Reads::NOTHING,
    }
}

fn rule(b: &Backward) -> Result<Vec<Option<Tensor>>, Error> {
    let gradient = b.gradient()?;
    let one = |(input, flow): (usize, &Flow)| -> Result<Option<Tensor>, Error> {
        let flowed = match flow {
            _ if !b.wants(input) => return Ok(None),
            Flow::Stops => return Ok(None),
            Flow::Passes => gradient.clone(),
            Flow::Through(row, uses) => {
                let mut inputs = uses.iter().map(|i| b.input(*i)).collect::<Result<Vec<_>, Error>>()?;
                inputs.push(gradient);
                b.cx.one(crate::op(row.name)?, &inputs, b.attributes)?
            }
        };
        b.unstretched(flowed, input).map(Some)
    };
    flows(b.op.name).iter().enumerate().map(one).collect()
}

//! Scans: every value together with those before it.

use windlass_tensor::Tensor;

use super::FLIP;
use super::axis::Axis;
use crate::op::Input;
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Error, Gradient, Op, Reads, Tolerance};

/// Sums up to each place.
pub static CUMSUM: Op = Op {
    name: "cumsum",
    about: "the sum of the values up to each place along dim",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::int("dim", -1)],
    outputs: |q| Axis::of(q, q.shape(0)?, "dim").and_then(|_| Ok(vec![q.like(0)?])),
    reference: |args| scan(args, |a, b| a + b),
    gradient: Gradient::rule(
        |_, _| Reads::NOTHING,
        |b| {
            let dim = b.inquiry().signed("dim")?;
            let turned = |x: &Tensor| b.cx.one(&FLIP, &[x], &Attributes::new().ints("dims", &[dim]));
            b.only(turned(&b.cx.one(&CUMSUM, &[&turned(b.gradient()?)?], b.attributes)?)?)
        },
    ),
    tolerance: Tolerance::SUM,
    profiles: |_| profiles(),
};

/// Products up to each place.
pub static CUMPROD: Op = Op {
    name: "cumprod",
    about: "the product of the values up to each place along dim",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::int("dim", -1)],
    outputs: |q| Axis::of(q, q.shape(0)?, "dim").and_then(|_| Ok(vec![q.like(0)?])),
    reference: |args| scan(args, |a, b| a * b),
    gradient: Gradient::rule(
        |_, _| Reads::input(0),
        |b| b.only(b.cx.one(&CUMPROD_BACKWARD, &[b.input(0)?, b.gradient()?], b.attributes)?),
    ),
    tolerance: Tolerance::SUM,
    profiles: |_| profiles(),
};

/// The gradient of [`CUMPROD`], where values are zero as well.
pub static CUMPROD_BACKWARD: Op = Op {
    name: "cumprod_backward",
    about: "the sum over i from k on of g[i] times the product of the values up to i but for x[k], along dim",
    inputs: &[Input::new("x"), Input::new("gradient")],
    attributes: &[Attribute::int("dim", -1)],
    outputs: |q| match q.shape(0)? == q.shape(1)? {
        true => Axis::of(q, q.shape(0)?, "dim").and_then(|_| Ok(vec![q.like(0)?])),
        false => q.fail(format!("x is {:?}, its gradient {:?}", q.shape(0)?, q.shape(1)?)),
    },
    reference: |args| {
        let (x, g, q) = (args.numbers(0)?, args.numbers(1)?, args.inquiry());
        let axis = Axis::of(&q, q.shape(0)?, "dim")?;
        let mut dx = vec![0.0; x.len()];
        for start in axis.starts() {
            let places: Vec<usize> = axis.places(start).collect();
            // What comes after a place, times its product with those up to it, then times those before it.
            let mut rest = 0.0;
            for (i, at) in places.iter().enumerate().rev() {
                let next = places.get(i + 1).map_or(0.0, |next| x[*next]);
                rest = g[*at] + next * rest;
                dx[*at] = rest;
            }
            let mut before = 1.0;
            for at in places {
                dx[at] *= before;
                before *= x[at];
            }
        }
        args.write_numbers(0, &dx)
    },
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance::SUM,
    profiles: |_| vec![Profile::new("last").normal(&[3, 33]).normal(&[3, 33])],
};

fn scan(args: &mut Args, join: fn(f64, f64) -> f64) -> Result<(), Error> {
    let (mut x, q) = (args.numbers(0)?, args.inquiry());
    let axis = Axis::of(&q, q.shape(0)?, "dim")?;
    for start in axis.starts() {
        for at in axis.places(start).skip(1) {
            x[at] = join(x[at - axis.inner], x[at]);
        }
    }
    args.write_numbers(0, &x)
}

fn profiles() -> Vec<Profile> {
    vec![
        Profile::new("last").normal(&[3, 33]),
        Profile::new("first").normal(&[17, 5]).attributes(Attributes::new().int("dim", 0)),
        Profile::new("views").with(Sample::normal(&[5, 33]).strided()),
    ]
}

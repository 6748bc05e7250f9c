//! Scans: every value together with those before it.

use super::axis::Axis;
use crate::op::Input;
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Error, Gradient, Op, Tolerance};

/// Sums up to each place.
pub static CUMSUM: Op = Op {
    name: "cumsum",
    about: "the sum of the values up to each place along dim",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::int("dim", -1)],
    outputs: |q| Axis::of(q, q.shape(0)?, "dim").and_then(|_| Ok(vec![q.like(0)?])),
    reference: |args| scan(args, |a, b| a + b),
    gradient: Gradient::Stops,
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
    gradient: Gradient::Stops,
    tolerance: Tolerance::SUM,
    profiles: |_| profiles(),
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

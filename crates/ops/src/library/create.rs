//! Tensors from nothing but attributes, at random or not. Random ones are functions of `seed` and `counter` (Philox).

use windlass_runtime::random::Philox;
use windlass_tensor::DType;

use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Error, Gradient, Op, Reads, Tolerance};

/// Values that one call may make.
const LARGEST: usize = 1 << 40;

/// An op that makes values: constant, name, formula, inputs, attributes, rule, reference, attributes of its profile.
macro_rules! makes {
    ($($(#[$doc:meta])* $id:ident $name:literal $about:literal [$($input:expr),*] [$($attribute:expr),*]
        $outputs:expr, $reference:expr, $profile:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: $about,
                inputs: &[$($input),*],
                attributes: &[$($attribute),*],
                outputs: $outputs,
                reference: $reference,
                gradient: Gradient::Stops,
                tolerance: Tolerance::ELEMENTWISE,
                profiles: |_| vec![$profile],
            };
        )*
    };
}

makes! {
    /// One value everywhere.
    FULL "full" "value, in the given shape" []
        [Attribute::required("shape"), Attribute::float("value", 0.0), Attribute::text("dtype", "F32")] shaped,
        |args| {
            let value = args.inquiry().float("value")?;
            fill(args, |_| value)
        }, Profile::new("matrix").attributes(shape(&[3, 5]).float("value", 2.5));
    /// Numbers in even steps.
    ARANGE "arange" "start, start + step, ... up to, not including, end" []
        [Attribute::float("start", 0.0), Attribute::required("end"), Attribute::float("step", 1.0), Attribute::text("dtype", "F32")]
        |q| {
            let count = ((q.float("end")? - q.float("start")?) / q.float("step")?).ceil();
            if !count.is_finite() || count > LARGEST as f64 {
                return q.fail(format!("there are {count} steps"));
            }
            spec(q, vec![count.max(0.0) as usize])
        },
        |args| {
            let (start, step) = (args.inquiry().float("start")?, args.inquiry().float("step")?);
            fill(args, |i| start + i as f64 * step)
        }, Profile::new("steps").attributes(Attributes::new().float("start", -1.0).float("end", 4.1).float("step", 0.5));
    /// Numbers evenly between two.
    LINSPACE "linspace" "count numbers from start to end, both included" []
        [Attribute::required("start"), Attribute::required("end"), Attribute::required("count"), Attribute::text("dtype", "F32")]
        |q| spec(q, vec![q.int("count")?]),
        |args| {
            let q = args.inquiry();
            let (start, end, count) = (q.float("start")?, q.float("end")?, q.int("count")?);
            let last = count.saturating_sub(1).max(1) as f64;
            // From the nearer end, so that both are met.
            fill(args, |i| {
                if 2 * i < count { start + (end - start) * i as f64 / last } else { end - (end - start) * (last - i as f64) / last }
            })
        }, Profile::new("seven").attributes(Attributes::new().float("start", -1.0).float("end", 2.0).int("count", 7));
    /// Ones on the diagonal.
    EYE "eye" "1 where row and column are the same, else 0" []
        [Attribute::required("rows"), Attribute::required("columns"), Attribute::text("dtype", "F32")]
        |q| spec(q, vec![q.int("rows")?, q.int("columns")?]),
        |args| {
            let columns = args.inquiry().int("columns")?;
            fill(args, |i| if i / columns == i % columns { 1.0 } else { 0.0 })
        }, Profile::new("wide").attributes(Attributes::new().int("rows", 3).int("columns", 5));
    /// A one at each class's place.
    ONE_HOT "one_hot" "1 at the place that x says along a new last dimension of `classes`, else 0" [Input::new("x")]
        [Attribute::required("classes"), Attribute::text("dtype", "I64")]
        |q| {
            let mut shape = q.shape(0)?.to_vec();
            shape.push(q.int("classes")?);
            spec(q, shape)
        },
        |args| {
            let (classes, x) = (args.inquiry().int("classes")?, args.ints(0)?);
            if let Some(bad) = x.iter().find(|x| **x < 0 || **x >= classes as i64) {
                return args.inquiry().fail(format!("{bad} is not one of {classes} classes"));
            }
            fill(args, |i| if x[i / classes] == (i % classes) as i64 { 1.0 } else { 0.0 })
        }, Profile::new("five").below(5, &[7]).attributes(Attributes::new().int("classes", 5));
    /// Evenly at random.
    UNIFORM "uniform" "random numbers in [low, high)" []
        [Attribute::required("shape"), Attribute::float("low", 0.0), Attribute::float("high", 1.0),
            Attribute::text("dtype", "F32"), Attribute::int("seed", 0), Attribute::int("counter", 0)] shaped,
        |args| {
            let (low, high) = (args.inquiry().float("low")?, args.inquiry().float("high")?);
            let mut values = vec![0.0f32; count(args)];
            philox(&args.inquiry())?.fill_uniform(&mut values);
            fill(args, |i| low + (high - low) * f64::from(values[i]))
        }, Profile::new("matrix").attributes(shape(&[3, 33]).int("seed", 7));
    /// Normal at random.
    NORMAL "normal" "random numbers of the normal distribution" []
        [Attribute::required("shape"), Attribute::float("mean", 0.0), Attribute::float("std", 1.0),
            Attribute::text("dtype", "F32"), Attribute::int("seed", 0), Attribute::int("counter", 0)] shaped,
        |args| {
            let (mean, std) = (args.inquiry().float("mean")?, args.inquiry().float("std")?);
            let mut values = vec![0.0f32; count(args)];
            philox(&args.inquiry())?.fill_normal(&mut values);
            fill(args, |i| mean + std * f64::from(values[i]))
        }, Profile::new("matrix").attributes(shape(&[3, 33]).int("seed", 7));
    /// Ones and zeros at random.
    BERNOULLI "bernoulli" "1 with probability p, else 0" []
        [Attribute::required("shape"), Attribute::float("p", 0.5), Attribute::text("dtype", "F32"), Attribute::int("seed", 0), Attribute::int("counter", 0)]
        shaped,
        |args| {
            let values = events(args, args.inquiry().float("p")?, count(args))?;
            fill(args, |i| f64::from(u8::from(values[i])))
        }, Profile::new("matrix").attributes(shape(&[3, 33]).float("p", 0.25));
    /// Whole numbers at random.
    RANDINT "randint" "random whole numbers in low..high" []
        [Attribute::required("shape"), Attribute::int("low", 0), Attribute::required("high"), Attribute::text("dtype", "I64"), Attribute::int("seed", 0), Attribute::int("counter", 0)]
        shaped,
        |args| {
            let q = args.inquiry();
            let mut values = vec![0i64; count(args)];
            philox(&q)?.fill_integers(&mut values, q.signed("low")?, q.signed("high")?)?;
            fill(args, |i| values[i] as f64)
        }, Profile::new("matrix").attributes(shape(&[3, 33]).int("high", 100));
    /// An order at random.
    RANDPERM "randperm" "the whole numbers below n in random order" []
        [Attribute::required("n"), Attribute::text("dtype", "I64"), Attribute::int("seed", 0), Attribute::int("counter", 0)]
        |q| spec(q, vec![q.int("n")?]),
        |args| {
            let order = philox(&args.inquiry())?.permutation(count(args));
            fill(args, |i| order[i] as f64)
        }, Profile::new("many").attributes(Attributes::new().int("n", 33));
}

/// Some values left out (Srivastava et al., 2014).
pub static DROPOUT: Op = Op {
    name: "dropout",
    about: "x / (1 - p), or 0 with probability p",
    inputs: &[Input::new("x")],
    attributes: &[Attribute::float("p", 0.5), Attribute::int("seed", 0), Attribute::int("counter", 0)],
    outputs: |q| Ok(vec![q.like(0)?]),
    reference: |args| {
        let (p, x) = (args.inquiry().float("p")?, args.numbers(0)?);
        let dropped = events(args, p, x.len())?;
        fill(args, |i| if dropped[i] { 0.0 } else { x[i] / (1.0 - p) })
    },
    // The same values are left out of what flows back.
    gradient: Gradient::rule(|_, _| Reads::NOTHING, |b| b.only(b.cx.one(&DROPOUT, &[b.gradient()?], b.attributes)?)),
    tolerance: Tolerance::ELEMENTWISE,
    profiles: |_| {
        vec![Profile::new("matrix").normal(&[3, 33]).attributes(Attributes::new().float("p", 0.25).int("seed", 7))]
    },
};

fn shape(dims: &[i64]) -> Attributes {
    Attributes::new().ints("shape", dims)
}

fn shaped(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    let dims: Option<Vec<usize>> = q.ints("shape")?.iter().map(|d| usize::try_from(*d).ok()).collect();
    match dims {
        Some(dims) => spec(q, dims),
        None => q.fail("a shape has no dimensions below 0"),
    }
}

fn spec(q: &Inquiry, shape: Vec<usize>) -> Result<Vec<OutputSpec>, Error> {
    let (name, count) = (q.text("dtype")?, shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)));
    let Some(dtype) = DType::from_name(name) else { return q.fail(format!("no type is called {name:?}")) };
    if count.is_none_or(|n| n > LARGEST) {
        return q.fail(format!("{shape:?} is too large"));
    }
    Ok(vec![OutputSpec::new(dtype, shape)])
}

fn count(args: &Args) -> usize {
    args.outputs[0].shape().values()
}

fn fill(args: &mut Args, value: impl Fn(usize) -> f64) -> Result<(), Error> {
    let values: Vec<f64> = (0..count(args)).map(value).collect();
    args.write_numbers(0, &values)
}

fn philox(q: &Inquiry) -> Result<Philox, Error> {
    Ok(Philox::at(q.signed("seed")? as u64, q.int("counter")? as u128))
}

fn events(args: &Args, probability: f64, count: usize) -> Result<Vec<bool>, Error> {
    let mut values = vec![false; count];
    philox(&args.inquiry())?.fill_bernoulli(&mut values, probability)?;
    Ok(values)
}

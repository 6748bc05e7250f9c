//! Reductions over one dimension, several, or all.

use windlass_tensor::{DType, Tensor};

use super::axis::{coordinates, dims, flat};
use super::reduce_backward;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Reads, Tolerance};

/// What a reduction gives for the values that fall together.
type Fold = fn(&[f64], &Inquiry) -> Result<f64, Error>;

/// Defines reductions: constant, name, formula, more attributes, type of the result, tolerance, fold.
macro_rules! reductions {
    ($($(#[$doc:meta])* $id:ident $name:literal [$($attribute:expr),*] $gives:ident $tolerance:expr, $gradient:expr, $fold:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: concat!("the ", $name, " over `dim`: a dimension, a list of them, or all"),
                inputs: &[Input::new("x")],
                attributes: &[Attribute::text("dim", "all"), Attribute::bool("keepdim", false), $($attribute),*],
                outputs: |q| outputs(q, Gives::$gives),
                reference: |args| reduce(args, $fold),
                gradient: $gradient,
                tolerance: $tolerance,
                profiles: |_| profiles(),
            };
        )*
    };
}

/// Of the largest and the smallest: equal ones share.
const EXTREME: Gradient = Gradient::rule(|_, _| Reads::input(0).and(Reads::output(0)), reduce_backward::extreme);

reductions! {
    /// The sum.
    SUM "sum" [] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::NOTHING, reduce_backward::sum), |x, _| Ok(x.iter().sum());
    /// The sum over the count.
    MEAN "mean" [] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::NOTHING, reduce_backward::mean), |x, _| Ok(x.iter().sum::<f64>() / x.len() as f64);
    /// The product.
    PROD "prod" [] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::input(0), reduce_backward::prod), |x, _| Ok(x.iter().product());
    /// The mean square distance from the mean, over the count less `correction`.
    VAR "var" [Attribute::int("correction", 1)] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::input(0), reduce_backward::var), variance;
    /// The square root of the variance.
    STD "std" [Attribute::int("correction", 1)] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::input(0).and(Reads::output(0)), reduce_backward::std), |x, q| Ok(variance(x, q)?.sqrt());
    /// The largest value; not a number if one of them is.
    MAX "max" [] Same Tolerance::EXACT, EXTREME, |x, q| extreme(x, q, |a, b| a > b);
    /// The smallest value; not a number if one of them is.
    MIN "min" [] Same Tolerance::EXACT, EXTREME, |x, q| extreme(x, q, |a, b| a < b);
    /// Whether one value is not 0.
    ANY "any" [] Truth Tolerance::EXACT, Gradient::Stops, |x, _| Ok(f64::from(x.iter().any(|v| *v != 0.0)));
    /// Whether no value is 0.
    ALL "all" [] Truth Tolerance::EXACT, Gradient::Stops, |x, _| Ok(f64::from(x.iter().all(|v| *v != 0.0)));
    /// sum(|x|^p)^(1/p); p may be infinite, and 0 counts values that are not 0.
    NORM "norm" [Attribute::float("p", 2.0)] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::input(0).and(Reads::output(0)), reduce_backward::norm), norm;
    /// log(sum(exp(x))), without overflow.
    LOGSUMEXP "logsumexp" [] Same Tolerance::SUM, Gradient::rule(|_, _| Reads::input(0).and(Reads::output(0)), reduce_backward::logsumexp), |x, _| Ok(logsumexp(x));
    /// The first place of the smallest value, in row-major order of the dimensions that fall together.
    ARGMIN "argmin" [] Place Tolerance::EXACT, Gradient::Stops, |x, _| {
        Ok(x.iter().enumerate().fold(0, |best, (i, v)| if *v < x[best] { i } else { best }) as f64)
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    Same,
    Truth,
    Place,
}

fn outputs(q: &Inquiry, gives: Gives) -> Result<Vec<OutputSpec>, Error> {
    let (like, dims) = (q.like(0)?, dims(q, q.shape(0)?.len())?);
    let keep = q.bool("keepdim")?;
    let each = like.shape.iter().enumerate();
    let shape: Vec<usize> = each
        .filter_map(|(i, dim)| match dims.contains(&i) {
            true => keep.then_some(1),
            false => Some(*dim),
        })
        .collect();
    let dtype = match gives {
        Gives::Truth => DType::Bool,
        Gives::Place => DType::I64,
        // Sums of whole numbers and of truths are whole numbers.
        Gives::Same if !like.dtype.is_float() && matches!(q.op.name, "sum" | "prod") => DType::I64,
        Gives::Same if !like.dtype.is_float() && !matches!(q.op.name, "max" | "min") => {
            return q.fail(format!("takes floats, not {}", like.dtype));
        }
        Gives::Same => like.dtype,
    };
    Ok(vec![OutputSpec::new(dtype, shape)])
}

fn reduce(args: &mut Args, fold: Fold) -> Result<(), Error> {
    let (x, q) = (args.numbers(0)?, args.inquiry());
    let shape = q.shape(0)?;
    let dims = dims(&q, shape.len())?;
    let kept: Vec<usize> = shape.iter().enumerate().map(|(i, dim)| if dims.contains(&i) { 1 } else { *dim }).collect();
    let mut together = vec![Vec::new(); kept.iter().product()];
    for (value, mut at) in x.iter().zip(coordinates(shape)) {
        dims.iter().for_each(|dim| at[*dim] = 0);
        together[flat(&kept, &at)].push(*value);
    }
    let values = together.iter().map(|values| fold(values, &q)).collect::<Result<Vec<f64>, Error>>()?;
    args.write_numbers(0, &values)
}

fn variance(x: &[f64], q: &Inquiry) -> Result<f64, Error> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let count = (x.len() as f64 - q.int("correction")? as f64).max(0.0);
    Ok(x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count)
}

fn extreme(x: &[f64], q: &Inquiry, better: fn(f64, f64) -> bool) -> Result<f64, Error> {
    let Some(first) = x.first() else { return q.fail("there is no extreme of no values") };
    Ok(x.iter().fold(*first, |best, v| if best.is_nan() || !(v.is_nan() || better(*v, best)) { best } else { *v }))
}

fn norm(x: &[f64], q: &Inquiry) -> Result<f64, Error> {
    let p = q.float("p")?;
    let sizes = x.iter().map(|v| v.abs());
    Ok(match p {
        f64::INFINITY => sizes.fold(0.0, f64::max),
        f64::NEG_INFINITY => sizes.fold(f64::INFINITY, f64::min),
        0.0 => sizes.filter(|v| *v != 0.0).count() as f64,
        _ => sizes.map(|v| v.powf(p)).sum::<f64>().powf(1.0 / p),
    })
}

/// log(sum(exp(x))); minus infinity for no values.
pub(super) fn logsumexp(x: &[f64]) -> f64 {
    let max = x.iter().fold(f64::NEG_INFINITY, |max, v| max.max(*v));
    if max.is_finite() { max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln() } else { max }
}

fn profiles() -> Vec<Profile> {
    let how = |dim: i64, keep| Attributes::new().ints("dim", &[dim]).bool("keepdim", keep);
    vec![
        Profile::new("all").normal(&[7, 13]),
        Profile::new("last").normal(&[5, 33]).attributes(how(-1, false)),
        Profile::new("first").normal(&[33, 5]).attributes(how(0, true)),
        Profile::new("middle").normal(&[3, 17, 4]).attributes(how(1, false)),
        Profile::new("two").normal(&[3, 5, 4]).attributes(Attributes::new().ints("dim", &[0, -1])),
        Profile::new("views").with(Sample::normal(&[5, 33]).strided()).attributes(how(-1, false)),
        Profile::new("long").normal(&[2, 9001]).attributes(how(-1, false)),
    ]
}

/// Calls a reduction of this file over dimension `dim`, which stays, with 1 value, where `keep` is true.
pub fn reduction(cx: &Context, op: &'static Op, x: &Tensor, dim: i64, keep: bool) -> Result<Tensor, Error> {
    cx.one(op, &[x], &Attributes::new().ints("dim", &[dim]).bool("keepdim", keep))
}

//! Losses. Each gives a value for every element or row, or their mean or sum, as `reduction` says.

use windlass_tensor::Tensor;

use super::linear::wide;
use super::loss_backward;
use super::reduce::logsumexp;
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::{Fill, Profile, Sample};
use crate::{Args, Attribute, Attributes, Context, Error, Gradient, Op, Reads, Tolerance};

const XY: &[Input] = &[Input::new("x"), Input::new("y")];

/// A loss of pairs: constant, name, formula, more attributes, function of prediction, target and the call.
macro_rules! pairs {
    ($($(#[$doc:meta])* $id:ident $name:literal $about:literal $range:expr, [$($attribute:expr),*] $f:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $id: Op = Op {
                name: $name,
                about: $about,
                inputs: XY,
                attributes: &[Attribute::text("reduction", "mean"), $($attribute),*],
                outputs: |q| {
                    if q.shape(0)? != q.shape(1)? {
                        return q.fail(format!("x {:?} and y {:?} must have one shape", q.shape(0)?, q.shape(1)?));
                    }
                    reduced(q, q.shape(0)?)
                },
                reference: |args| {
                    let (x, y, q) = (args.numbers(0)?, args.numbers(1)?, args.inquiry());
                    let f: fn(f64, f64, &Inquiry) -> Result<f64, Error> = $f;
                    let losses = x.iter().zip(&y).map(|(x, y)| f(*x, *y, &q)).collect::<Result<Vec<f64>, Error>>()?;
                    let count = losses.len() as f64;
                    reduce(args, &losses, count)
                },
                gradient: Gradient::rule(|_, _| Reads::inputs_from(0), loss_backward::pairs),
                tolerance: Tolerance::SUM,
                profiles: |_| pair_profiles($range),
            };
        )*
    };
}

pairs! {
    /// Mean square error.
    MSE_LOSS "mse_loss" "(x - y)^2" None, [] |x, y, _| Ok((x - y).powi(2));
    /// Mean absolute error.
    L1_LOSS "l1_loss" "|x - y|" None, [] |x, y, _| Ok((x - y).abs());
    /// Square below `beta`, absolute above (arXiv 1504.08083).
    SMOOTH_L1_LOSS "smooth_l1_loss" "d^2 / (2 beta) for d = |x - y| < beta, else d - beta / 2" None,
        [Attribute::float("beta", 1.0)] |x, y, q| {
            let (d, beta) = ((x - y).abs(), q.float("beta")?);
            Ok(if d < beta { d * d / (2.0 * beta) } else { d - beta / 2.0 })
        };
    /// Huber's loss (1964).
    HUBER_LOSS "huber_loss" "d^2 / 2 for d = |x - y| < delta, else delta * (d - delta / 2)" None,
        [Attribute::float("delta", 1.0)] |x, y, q| {
            let (d, delta) = ((x - y).abs(), q.float("delta")?);
            Ok(if d < delta { d * d / 2.0 } else { delta * (d - delta / 2.0) })
        };
    /// Cross entropy of probabilities x with truths y; logarithms are not below -100.
    BCE_LOSS "bce_loss" "-(y log(x) + (1 - y) log(1 - x))" Some((0.01, 0.99)), [] |x, y, _| {
        Ok(-(y * x.ln().max(-100.0) + (1.0 - y) * (-x).ln_1p().max(-100.0)))
    };
    /// The same of logits x.
    BCE_WITH_LOGITS_LOSS "bce_with_logits_loss" "max(x, 0) - x y + log(1 + exp(-|x|))" Some((0.0, 1.0)), [] |x, y, _| {
        Ok(x.max(0.0) - x * y + (-x.abs()).exp().ln_1p())
    };
    /// Kullback-Leibler divergence of logarithms x from probabilities y, which are logarithms too with `log_target`.
    KL_DIV "kl_div" "y * (log(y) - x); 0 where y is 0" Some((0.01, 0.99)), [Attribute::bool("log_target", false)]
        |x, y, q| Ok(match q.bool("log_target")? {
            true => y.exp() * (y - x),
            false if y == 0.0 => 0.0,
            false => y * (y.ln() - x),
        });
}

/// Cross entropy of rows of logits with the classes that are right.
pub static CROSS_ENTROPY: Op = Op {
    name: "cross_entropy",
    about: "log(sum(exp(x))) - x[target] for each row, smoothed by label_smoothing; rows of ignore_index do not count",
    inputs: &[Input::new("x"), Input::new("target")],
    attributes: &[
        Attribute::text("reduction", "mean"),
        Attribute::int("ignore_index", -100),
        Attribute::float("label_smoothing", 0.0),
    ],
    outputs: rows,
    reference: |args| {
        let smoothing = args.inquiry().float("label_smoothing")?;
        classes(args, move |row, target| {
            let total = logsumexp(row);
            let even = total - row.iter().sum::<f64>() / row.len() as f64;
            (1.0 - smoothing) * (total - row[target]) + if smoothing > 0.0 { smoothing * even } else { 0.0 }
        })
    },
    gradient: Gradient::rule(|_, _| Reads::inputs_from(0), loss_backward::cross_entropy),
    tolerance: Tolerance::SUM,
    profiles: |_| class_profiles(),
};

/// The same of rows of logarithms of probabilities.
pub static NLL_LOSS: Op = Op {
    name: "nll_loss",
    about: "-x[target] for each row; rows of ignore_index do not count",
    inputs: &[Input::new("x"), Input::new("target")],
    attributes: &[Attribute::text("reduction", "mean"), Attribute::int("ignore_index", -100)],
    outputs: rows,
    reference: |args| classes(args, |row, target| -row[target]),
    gradient: Gradient::rule(|_, _| Reads::input(1), loss_backward::nll_loss),
    tolerance: Tolerance::SUM,
    profiles: |_| class_profiles(),
};

fn reduced(q: &Inquiry, shape: &[usize]) -> Result<Vec<OutputSpec>, Error> {
    match q.text("reduction")? {
        "none" => Ok(vec![OutputSpec::new(wide(q.input(0)?), shape)]),
        "mean" | "sum" => Ok(vec![OutputSpec::new(wide(q.input(0)?), [])]),
        other => q.fail(format!("reduction is none, mean or sum, not {other:?}")),
    }
}

fn reduce(args: &mut Args, losses: &[f64], count: f64) -> Result<(), Error> {
    match args.inquiry().text("reduction")? {
        "none" => args.write_numbers(0, losses),
        "sum" => args.write_numbers(0, &[losses.iter().sum()]),
        _ => args.write_numbers(0, &[losses.iter().sum::<f64>() / count]),
    }
}

fn rows(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    match (q.shape(0)?, q.shape(1)?) {
        ([n, _], [m]) if n == m => reduced(q, &[*n]),
        (x, y) => q.fail(format!("expected x [rows, classes] and target [rows], found {x:?} and {y:?}")),
    }
}

fn classes(args: &mut Args, loss: impl Fn(&[f64], usize) -> f64) -> Result<(), Error> {
    let (x, targets, ignored) = (args.numbers(0)?, args.ints(1)?, args.inquiry().signed("ignore_index")?);
    let count = args.inputs[0].shape().columns();
    let mut losses = Vec::with_capacity(targets.len());
    for (i, target) in targets.iter().enumerate() {
        if *target == ignored {
            losses.push(0.0);
            continue;
        }
        let Some(class) = usize::try_from(*target).ok().filter(|t| *t < count) else {
            return args.inquiry().fail(format!("{target} is not one of {count} classes"));
        };
        losses.push(loss(&x[i * count..][..count], class));
    }
    let counted = targets.iter().filter(|t| **t != ignored).count();
    reduce(args, &losses, counted as f64)
}

fn pair_profiles(range: Option<(f32, f32)>) -> Vec<Profile> {
    // The same range serves both; what takes logits as well.
    let fill = range.map_or(Fill::Normal(1.0), |(low, high)| Fill::Between(low, high));
    let pair = |name, shape: &[usize]| {
        Profile::new(name).with(Sample::normal(shape).fill(fill)).with(Sample::normal(shape).fill(fill))
    };
    vec![
        pair("mean", &[3, 33]),
        pair("sum", &[65]).attributes(Attributes::new().text("reduction", "sum")),
        pair("none", &[5, 7]).attributes(Attributes::new().text("reduction", "none")),
    ]
}

fn class_profiles() -> Vec<Profile> {
    let rows = |name| Profile::new(name).normal(&[9, 33]).below(33, &[9]);
    vec![
        rows("mean"),
        rows("none").attributes(Attributes::new().text("reduction", "none")),
        rows("ignored").attributes(Attributes::new().int("ignore_index", 3).text("reduction", "sum")),
    ]
}

/// See [`CROSS_ENTROPY`]: the mean over the rows of `logits` `[rows, classes]` whose `target` is not `ignore`.
pub fn cross_entropy(cx: &Context, logits: &Tensor, target: &Tensor, ignore: i64) -> Result<Tensor, Error> {
    let attributes = Attributes::new().with("ignore_index", crate::Value::Int(ignore));
    cx.one(&CROSS_ENTROPY, &[logits, target], &attributes)
}

//! What flows back through losses.

use windlass_tensor::{DType, Tensor};

use super::reduce::logsumexp;
use super::{elementwise, elementwise_with, scale};
use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Args, Attribute, Attributes, Backward, Error, Gradient, Op, Tolerance};

type Flowed = Result<Vec<Option<Tensor>>, Error>;

/// The gradient of cross entropy for its logits.
pub static CROSS_ENTROPY_BACKWARD: Op = Op {
    name: "cross_entropy_backward",
    about: "gradient of each row times softmax(x) less the smoothed target; rows of ignore_index get zeros",
    inputs: &[Input::new("x"), Input::new("target"), Input::new("gradient")],
    attributes: &[Attribute::int("ignore_index", -100), Attribute::float("label_smoothing", 0.0)],
    outputs,
    reference: |args| {
        let smoothing = args.inquiry().float("label_smoothing")?;
        rows(args, move |x, target, gradient, dx| {
            let (total, even) = (logsumexp(x), smoothing / x.len() as f64);
            for (class, (dx, x)) in dx.iter_mut().zip(x).enumerate() {
                let right = if class == target { 1.0 - smoothing } else { 0.0 };
                *dx = gradient * ((x - total).exp() - right - even);
            }
        })
    },
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance::SUM,
    profiles: |_| {
        let case = |name| Profile::new(name).normal(&[9, 33]).below(33, &[9]).normal(&[9]);
        vec![
            case("plain"),
            case("ignored").attributes(Attributes::new().int("ignore_index", 3).float("label_smoothing", 0.1)),
            Profile::new("wide").normal(&[3, 1001]).below(1001, &[3]).normal(&[3]),
        ]
    },
};

/// Cross entropy and its gradient in the room of the logits, which are large.
pub static CROSS_ENTROPY_STEP: Op = Op {
    name: "cross_entropy_step",
    about: "makes logits the gradients of the losses of their rows, and gives these; rows of ignore_index get zeros",
    // Outputs are the logits [rows, classes], which change, and the losses [rows], all F32.
    inputs: &[Input::new("target")],
    attributes: &[Attribute::required("classes"), Attribute::int("ignore_index", -100)],
    outputs: |q| {
        let [rows] = q.shape(0)? else { return q.fail(format!("target must be one row, not {:?}", q.shape(0)?)) };
        let logits = OutputSpec::new(DType::F32, [*rows, q.int("classes")?]);
        Ok(vec![logits.zeroed(), OutputSpec::new(DType::F32, [*rows])])
    },
    reference: |args| {
        let (targets, ignored) = (args.ints(0)?, args.inquiry().signed("ignore_index")?);
        let (count, mut losses) = (args.inquiry().int("classes")?, vec![0.0; targets.len()]);
        let mut logits: Vec<f64> = args.output(0)?.iter().map(|v| f64::from(*v)).collect();
        for (i, (row, target)) in logits.chunks_exact_mut(count.max(1)).zip(&targets).enumerate() {
            if *target == ignored {
                row.fill(0.0);
                continue;
            }
            let Some(class) = usize::try_from(*target).ok().filter(|t| *t < count) else {
                return args.inquiry().fail(format!("{target} is not one of {count} classes"));
            };
            let total = logsumexp(row);
            losses[i] = total - row[class];
            row.iter_mut().for_each(|x| *x = (*x - total).exp());
            row[class] -= 1.0;
        }
        args.write_numbers(0, &logits)?;
        args.write_numbers(1, &losses)
    },
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance::SUM,
    profiles: |_| {
        let how = || Attributes::new().int("classes", 1001);
        vec![
            Profile::new("plain").below(1001, &[9]).attributes(how()),
            Profile::new("ignored").below(1001, &[9]).attributes(how().int("ignore_index", 3)),
        ]
    },
};

/// The gradient of the negative logarithm of the likelihood.
pub static NLL_LOSS_BACKWARD: Op = Op {
    name: "nll_loss_backward",
    about: "less the gradient of each row where its target is; else zeros, like x",
    inputs: CROSS_ENTROPY_BACKWARD.inputs,
    attributes: &[Attribute::int("ignore_index", -100)],
    outputs,
    reference: |args| rows(args, |_, target, gradient, dx| dx[target] = -gradient),
    gradient: Gradient::Refused("it is a gradient itself"),
    tolerance: Tolerance::SUM,
    profiles: |_| vec![Profile::new("plain").normal(&[9, 33]).below(33, &[9]).normal(&[9])],
};

fn outputs(q: &Inquiry) -> Result<Vec<OutputSpec>, Error> {
    match (q.shape(0)?, q.shape(1)?, q.shape(2)?) {
        ([n, _], [m], [l]) if n == m && n == l => Ok(vec![q.like(0)?]),
        (x, y, g) => q.fail(format!("expected x [rows, classes] and two rows, found {x:?}, {y:?} and {g:?}")),
    }
}

fn rows(args: &mut Args, row: impl Fn(&[f64], usize, f64, &mut [f64])) -> Result<(), Error> {
    let (x, targets, gradients) = (args.numbers(0)?, args.ints(1)?, args.numbers(2)?);
    let (ignored, count) = (args.inquiry().signed("ignore_index")?, args.inputs[0].shape().columns());
    let mut dx = vec![0.0; x.len()];
    for (i, target) in targets.iter().enumerate().filter(|(_, target)| **target != ignored) {
        let Some(class) = usize::try_from(*target).ok().filter(|t| *t < count) else {
            return args.inquiry().fail(format!("{target} is not one of {count} classes"));
        };
        row(&x[i * count..][..count], class, gradients[i], &mut dx[i * count..][..count]);
    }
    args.write_numbers(0, &dx)
}

pub(super) fn cross_entropy(b: &Backward) -> Flowed {
    let q = b.inquiry();
    let attributes = Attributes::new()
        .with("ignore_index", q.attribute("ignore_index")?.clone())
        .float("label_smoothing", q.float("label_smoothing")?);
    let gradient = of_rows(b)?;
    let flowed = b.cx.one(&CROSS_ENTROPY_BACKWARD, &[b.input(0)?, b.input(1)?, &gradient], &attributes)?;
    Ok(vec![Some(flowed), None])
}

pub(super) fn nll_loss(b: &Backward) -> Flowed {
    let attributes = Attributes::new().with("ignore_index", b.inquiry().attribute("ignore_index")?.clone());
    let gradient = of_rows(b)?;
    // The logarithms themselves are not read: anything of their shape will do.
    let like = crate::zeros(gradient.element().dtype().unwrap_or(DType::F32), b.shape(0))?;
    let flowed = b.cx.one(&NLL_LOSS_BACKWARD, &[&like, b.input(1)?, &gradient], &attributes)?;
    Ok(vec![Some(flowed), None])
}

/// The gradient of each row's loss.
fn of_rows(b: &Backward) -> Result<Tensor, Error> {
    let (g, q, target) = (b.gradient()?, b.inquiry(), b.input(1)?);
    let whole = match q.text("reduction")? {
        "none" => return Ok(g.clone()),
        "sum" => g.clone(),
        _ => {
            let ignored = Tensor::from_slice(&[q.signed("ignore_index")?], [])?;
            let ignored = super::cast(b.cx, &ignored, target.element().dtype().unwrap_or(DType::I64))?;
            let counted = elementwise(b.cx, "ne", &[target, &ignored])?;
            let counted = super::cast(b.cx, &counted, g.element().dtype().unwrap_or(DType::F32))?;
            let count = b.cx.one(&super::SUM, &[&counted], &Attributes::NONE)?;
            elementwise(b.cx, "div", &[g, &count])?
        }
    };
    Ok(whole.broadcast_to([target.shape().values()])?.contiguous()?)
}

/// The gradients of the losses of pairs.
pub(super) fn pairs(b: &Backward) -> Flowed {
    let (cx, x, y, q) = (b.cx, b.input(0)?, b.input(1)?, b.inquiry());
    let op = |name: &str, inputs: &[&Tensor]| elementwise(cx, name, inputs);
    let clamp = |x: &Tensor, by: f64| {
        elementwise_with(cx, "clamp", &[x], &Attributes::new().float("low", -by).float("high", by))
    };
    let apart = || op("sub", &[x, y]);
    let times_two = |t: Tensor| scale(cx, t, 2.0);
    let opposite = |t: &Tensor| op("neg", &[t]);
    // The derivatives with respect to x and y.
    let (by_x, by_y) = match b.op.name {
        "mse_loss" => both(times_two(apart()?)?, opposite)?,
        "l1_loss" => both(op("sign", &[&apart()?])?, opposite)?,
        "smooth_l1_loss" => both(clamp(&scale(cx, apart()?, 1.0 / q.float("beta")?)?, 1.0)?, opposite)?,
        "huber_loss" => both(clamp(&apart()?, q.float("delta")?)?, opposite)?,
        "bce_loss" => {
            let rest = op("mul", &[x, &elementwise_with(cx, "shift", &[&opposite(x)?], &by(1.0))?])?;
            let least = Attributes::new().float("low", 1e-12);
            let by_x = op("div", &[&apart()?, &elementwise_with(cx, "clamp", &[&rest], &least)?])?;
            let bounded = |t: &Tensor| {
                elementwise_with(cx, "clamp", &[&op("log", &[t])?], &Attributes::new().float("low", -100.0))
            };
            let other = elementwise_with(cx, "shift", &[&opposite(x)?], &by(1.0))?;
            (by_x, op("sub", &[&bounded(&other)?, &bounded(x)?])?)
        }
        "bce_with_logits_loss" => (op("sub", &[&op("sigmoid", &[x])?, y])?, opposite(x)?),
        "kl_div" if q.bool("log_target")? => {
            let truth = op("exp", &[y])?;
            let more = elementwise_with(cx, "shift", &[&op("sub", &[y, x])?], &by(1.0))?;
            (opposite(&truth)?, op("mul", &[&truth, &more])?)
        }
        "kl_div" => {
            let by_y = elementwise_with(cx, "shift", &[&op("sub", &[&op("log", &[y])?, x])?], &by(1.0))?;
            let none = op("logical_not", &[y])?;
            (opposite(y)?, cx.one(&super::MASKED_FILL, &[&by_y, &none], &Attributes::NONE)?)
        }
        other => return b.fail(format!("{other} is not a loss of pairs")),
    };
    let gradient = match q.text("reduction")? {
        "mean" => scale(cx, b.gradient()?.clone(), 1.0 / x.shape().values() as f64)?,
        _ => b.gradient()?.clone(),
    };
    Ok(vec![Some(op("mul", &[&by_x, &gradient])?), Some(op("mul", &[&by_y, &gradient])?)])
}

fn by(value: f64) -> Attributes {
    Attributes::new().float("by", value)
}

fn both(by_x: Tensor, opposite: impl Fn(&Tensor) -> Result<Tensor, Error>) -> Result<(Tensor, Tensor), Error> {
    let by_y = opposite(&by_x)?;
    Ok((by_x, by_y))
}

//! What flows back through reductions.

use windlass_tensor::{DType, Tensor};

use super::axis::dims;
use super::{CUMPROD, FLIP, PAD, SUM, elementwise, elementwise_with, scale};
use crate::{Attributes, Backward, Error};

type Flowed = Result<Vec<Option<Tensor>>, Error>;

pub(super) fn sum(b: &Backward) -> Flowed {
    b.only(stretched(b, b.gradient()?)?)
}

pub(super) fn mean(b: &Backward) -> Flowed {
    b.only(stretched(b, &scale(b.cx, b.gradient()?.clone(), 1.0 / together(b)? as f64)?)?)
}

/// Products of what stands before times products of what stands after, so that zeros are right.
pub(super) fn prod(b: &Backward) -> Flowed {
    let (cx, x, chosen) = (b.cx, b.input(0)?, dims(&b.inquiry(), b.shape(0).len())?);
    let rank = x.shape().rank();
    let order: Vec<usize> = (0..rank).filter(|i| !chosen.contains(i)).chain(chosen.iter().copied()).collect();
    let count = together(b)?;
    let turned = x.permute(&order)?.contiguous()?;
    let shape = turned.shape().to_vec();
    let flat = turned.reshape([turned.shape().values() / count.max(1), count])?;
    let before = |x: &Tensor| -> Result<Tensor, Error> {
        let one_first = cx.one(&PAD, &[x], &Attributes::new().ints("pads", &[1, 0]).float("value", 1.0))?;
        Ok(cx.one(&CUMPROD, &[&one_first], &Attributes::NONE)?.narrow(1, 0, count)?)
    };
    let flip = |x: &Tensor| cx.one(&FLIP, &[x], &Attributes::new().ints("dims", &[1]));
    let after = flip(&before(&flip(&flat)?)?)?;
    let others = elementwise(cx, "mul", &[&before(&flat)?, &after])?.reshape(shape)?;
    let mut back = vec![0; rank];
    order.iter().enumerate().for_each(|(to, from)| back[*from] = to);
    b.only(elementwise(cx, "mul", &[&others.permute(&back)?, &stretched(b, b.gradient()?)?])?)
}

pub(super) fn var(b: &Backward) -> Flowed {
    b.only(variance(b, b.gradient()?)?)
}

pub(super) fn std(b: &Backward) -> Flowed {
    let half = scale(b.cx, elementwise(b.cx, "div", &[b.gradient()?, b.output(0)?])?, 0.5)?;
    b.only(variance(b, &half)?)
}

fn variance(b: &Backward, gradient: &Tensor) -> Result<Tensor, Error> {
    let (cx, x, count) = (b.cx, b.input(0)?, together(b)? as f64);
    let mean = scale(cx, sums(b, x)?, 1.0 / count)?;
    let apart = elementwise(cx, "sub", &[x, &mean])?;
    let factor = 2.0 / (count - b.inquiry().int("correction")? as f64).max(0.0);
    elementwise(cx, "mul", &[&stretched(b, &scale(cx, gradient.clone(), factor)?)?, &apart])
}

pub(super) fn extreme(b: &Backward) -> Flowed {
    let (cx, x, g) = (b.cx, b.input(0)?, b.gradient()?);
    let best = elementwise(cx, "eq", &[x, &stretched(b, b.output(0)?)?])?;
    let best = super::cast(cx, &best, g.element().dtype().unwrap_or(DType::F32))?;
    let share = elementwise(cx, "div", &[&best, &sums(b, &best)?])?;
    b.only(elementwise(cx, "mul", &[&share, &stretched(b, g)?])?)
}

/// g sign(x) (|x| / norm)^(p - 1); the largest ones share where p is infinite.
pub(super) fn norm(b: &Backward) -> Flowed {
    let (cx, x, p) = (b.cx, b.input(0)?, b.inquiry().float("p")?);
    if p == 0.0 {
        return Ok(vec![None]);
    }
    let (y, g) = (stretched(b, b.output(0)?)?, stretched(b, b.gradient()?)?);
    let (sign, size) = (elementwise(cx, "sign", &[x])?, elementwise(cx, "abs", &[x])?);
    let weight = if p.is_infinite() {
        let best = elementwise(cx, "eq", &[&size, &y])?;
        let best = super::cast(cx, &best, g.element().dtype().unwrap_or(DType::F32))?;
        elementwise(cx, "div", &[&best, &sums(b, &best)?])?
    } else {
        let share = elementwise(cx, "div", &[&size, &y])?;
        elementwise_with(cx, "power", &[&share], &Attributes::new().float("exponent", p - 1.0))?
    };
    let flowed = elementwise(cx, "mul", &[&elementwise(cx, "mul", &[&sign, &weight])?, &g])?;
    // Where everything is zero, so is the gradient.
    let nothing = elementwise(cx, "logical_not", &[&y])?;
    b.only(cx.one(&super::MASKED_FILL, &[&flowed, &nothing], &Attributes::NONE)?)
}

pub(super) fn logsumexp(b: &Backward) -> Flowed {
    let cx = b.cx;
    let apart = elementwise(cx, "sub", &[b.input(0)?, &stretched(b, b.output(0)?)?])?;
    let weights = elementwise(cx, "exp", &[&apart])?;
    b.only(elementwise(cx, "mul", &[&weights, &stretched(b, b.gradient()?)?])?)
}

/// How many values fall together.
fn together(b: &Backward) -> Result<usize, Error> {
    let shape = b.shape(0);
    Ok(dims(&b.inquiry(), shape.len())?.iter().map(|dim| shape[*dim]).product())
}

/// Sums over the call's dimensions, which stay with one value.
fn sums(b: &Backward, x: &Tensor) -> Result<Tensor, Error> {
    let all: Vec<i64> = dims(&b.inquiry(), b.shape(0).len())?.iter().map(|dim| *dim as i64).collect();
    b.cx.one(&SUM, &[x], &Attributes::new().ints("dim", &all).bool("keepdim", true))
}

/// What the reduction gives, stretched to the shape of its input.
fn stretched(b: &Backward, reduced: &Tensor) -> Result<Tensor, Error> {
    let shape = b.shape(0);
    let chosen = dims(&b.inquiry(), shape.len())?;
    let kept: Vec<usize> =
        shape.iter().enumerate().map(|(i, dim)| if chosen.contains(&i) { 1 } else { *dim }).collect();
    Ok(reduced.contiguous()?.reshape(kept)?.broadcast_to(shape.to_vec())?)
}

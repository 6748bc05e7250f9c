//! Cross entropy over rows of logits, and what flows back.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::math;
use crate::simd::Simd;
use crate::span::Span;

pub(super) const FORWARD: Kernel = Kernel { op: "cross_entropy", supports, run: forward };
pub(super) const BACKWARD: Kernel = Kernel { op: "cross_entropy_backward", supports, run: backward };

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = q.inputs[0].element().dtype() == Some(DType::F32);
    if f32 && q.shape(0).is_ok_and(|shape| shape.last() != Some(&0)) { Ok(()) } else { Err("takes F32") }
}

fn forward(args: &mut Args) -> Result<(), Error> {
    let (x, targets, columns) = (args.f32s(0)?, targets(args)?, args.inputs[0].shape().columns());
    let (smoothing, level) = (args.inquiry().float("label_smoothing")?, level());
    let mut losses = vec![0.0f64; targets.len()];
    let into = Span::of(&mut losses);
    args.session.split(targets.len(), 1, &|rows| {
        for row in rows {
            let Some(target) = targets[row] else { continue };
            let x = &x[row * columns..][..columns];
            let (mut sum, mut total) = (0.0, 0.0);
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, Sums { x, log_sum: &mut total, sum: (smoothing > 0.0).then_some(&mut sum) }) }
            let even = total - sum / columns as f64;
            let smooth = if smoothing > 0.0 { smoothing * even } else { 0.0 };
            // SAFETY: rows are disjoint.
            unsafe { into.part(row..row + 1)[0] = (1.0 - smoothing) * (total - f64::from(x[target])) + smooth };
        }
    });
    let counted = targets.iter().flatten().count();
    match args.inquiry().text("reduction")? {
        "none" => args.write_numbers(0, &losses),
        "sum" => args.write_numbers(0, &[losses.iter().sum()]),
        _ => args.write_numbers(0, &[losses.iter().sum::<f64>() / counted as f64]),
    }
}

fn backward(args: &mut Args) -> Result<(), Error> {
    let (x, targets, columns) = (args.f32s(0)?, targets(args)?, args.inputs[0].shape().columns());
    let (g, smoothing) = (args.f32s(2)?, args.inquiry().float("label_smoothing")? as f32);
    let (level, session) = (level(), args.session);
    let dx = Span::of(args.output(0)?);
    session.split(targets.len(), 1, &|rows| {
        for row in rows {
            let at = row * columns..(row + 1) * columns;
            // SAFETY: rows are disjoint.
            let dx = unsafe { dx.part(at.clone()) };
            let Some(target) = targets[row] else {
                dx.fill(0.0);
                continue;
            };
            let mut total = 0.0;
            // SAFETY: the level is this machine's; the kernels ask for nothing else.
            unsafe {
                dispatch(level, Sums { x: &x[at.clone()], log_sum: &mut total, sum: None });
                let even = smoothing / columns as f32;
                dispatch(level, Weights { x: &x[at], log_sum: total as f32, even, by: g[row], dx });
            }
            dx[target] -= g[row] * (1.0 - smoothing);
        }
    });
    Ok(())
}

/// The class of each row; `None` where it does not count.
fn targets(args: &Args) -> Result<Vec<Option<usize>>, Error> {
    let (all, ignored) = (args.ints(1)?, args.inquiry().signed("ignore_index")?);
    let columns = args.inputs[0].shape().columns();
    let class = |target: i64| match usize::try_from(target) {
        _ if target == ignored => Ok(None),
        Ok(class) if class < columns => Ok(Some(class)),
        _ => args.inquiry().fail(format!("{target} is not one of {columns} classes")),
    };
    all.into_iter().map(class).collect()
}

/// The logarithm of the sum of exponentials of a row, and its sum if that is wanted.
struct Sums<'a> {
    x: &'a [f32],
    log_sum: &'a mut f64,
    sum: Option<&'a mut f64>,
}

impl isa::Kernel for Sums<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES > 1 { sums::<true>(self) } else { sums::<false>(self) }
    }
}

#[inline(always)]
fn sums<const FMA: bool>(sums: Sums) {
    let (lines, rest) = sums.x.as_chunks::<32>();
    let mut most = [f32::NEG_INFINITY; 32];
    for line in lines {
        for i in 0..32 {
            most[i] = if line[i] > most[i] { line[i] } else { most[i] };
        }
    }
    let max = most.iter().chain(rest).fold(f32::NEG_INFINITY, |max, v| if *v > max { *v } else { max });
    let mut total = 0.0;
    // Partial sums in single precision of a few thousand values each.
    for part in lines.chunks(128) {
        let mut partial = [0.0f32; 32];
        for line in part {
            for i in 0..32 {
                partial[i] += math::exp::<FMA>(line[i] - max);
            }
        }
        total += partial.iter().map(|v| f64::from(*v)).sum::<f64>();
    }
    total += rest.iter().map(|v| f64::from(math::exp::<FMA>(v - max))).sum::<f64>();
    *sums.log_sum = f64::from(max) + total.ln();
    if let Some(sum) = sums.sum {
        *sum = sums.x.iter().map(|v| f64::from(*v)).sum();
    }
}

/// `by` times the weights of a softmax, less what smoothing takes from all.
struct Weights<'a> {
    x: &'a [f32],
    log_sum: f32,
    even: f32,
    by: f32,
    dx: &'a mut [f32],
}

impl isa::Kernel for Weights<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES > 1 { weights::<true>(self) } else { weights::<false>(self) }
    }
}

#[inline(always)]
fn weights<const FMA: bool>(w: Weights) {
    for (dx, x) in w.dx.iter_mut().zip(w.x) {
        *dx = w.by * (math::exp::<FMA>(x - w.log_sum) - w.even);
    }
}

//! Rows of logits: logarithms of probabilities, cross entropy and its gradient.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use super::norm::sum;
use super::softmax::largest;
use crate::isa::{self, Level, dispatch, level};
use crate::math;
use crate::simd::Simd;
use crate::span::Span;

pub(super) const LOG_SOFTMAX: Kernel = Kernel { op: "log_softmax", supports: f32s, run: log_softmax };
pub(super) const CROSS_ENTROPY: Kernel = Kernel { op: "cross_entropy", supports: f32s, run: cross_entropy };
pub(super) const CROSS_ENTROPY_BACKWARD: Kernel =
    Kernel { op: "cross_entropy_backward", supports: f32s, run: cross_entropy_backward };

pub(super) const CROSS_ENTROPY_STEP: Kernel =
    Kernel { op: "cross_entropy_step", supports: |_| Ok(()), run: cross_entropy_step };

/// Values that one thread takes at a time.
const GRAIN: usize = 8 << 10;

/// Values whose exponentials are added up by themselves.
const PIECE: usize = 512;

fn f32s(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn log_softmax(args: &mut Args) -> Result<(), Error> {
    let (x, columns, session) = (args.f32s(0)?, args.inputs[0].shape().columns().max(1), args.session);
    let (level, y) = (level(), Span::of(args.output(0)?));
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        for row in rows {
            let x = &x[row * columns..(row + 1) * columns];
            let (max, total) = total(level, x);
            // SAFETY: rows are disjoint.
            let y = unsafe { y.part(row * columns..(row + 1) * columns) };
            let log = total.ln();
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - max) - log);
        }
    });
    Ok(())
}

/// The class of each row, `None` where it does not count.
fn targets(args: &Args, input: usize, classes: usize) -> Result<Vec<Option<usize>>, Error> {
    let (targets, ignored) = (args.ints(input)?, args.inquiry().signed("ignore_index")?);
    let class = |target: i64| usize::try_from(target).ok().filter(|class| *class < classes);
    match targets.iter().find(|target| **target != ignored && class(**target).is_none()) {
        Some(wrong) => args.inquiry().fail(format!("{wrong} is not one of {classes} classes")),
        None => Ok(targets.into_iter().map(|target| class(target).filter(|_| target != ignored)).collect()),
    }
}

fn cross_entropy(args: &mut Args) -> Result<(), Error> {
    let (x, classes, session) = (args.f32s(0)?, args.inputs[0].shape().columns().max(1), args.session);
    let (targets, smoothing) = (targets(args, 1, classes)?, args.inquiry().float("label_smoothing")?);
    let (level, mut losses) = (level(), vec![0.0f64; targets.len()]);
    let span = Span::of(&mut losses);
    session.split(targets.len(), GRAIN.div_ceil(classes), &|rows| {
        for row in rows {
            let Some(target) = targets[row] else { continue };
            let x = &x[row * classes..(row + 1) * classes];
            let (max, total) = total(level, x);
            let total = f64::from(max) + f64::from(total).ln();
            let even = if smoothing > 0.0 { total - mean(level, x) } else { 0.0 };
            // SAFETY: rows are disjoint.
            let loss = unsafe { span.part(row..row + 1) };
            loss[0] = (1.0 - smoothing) * (total - f64::from(x[target])) + smoothing * even;
        }
    });
    let count = targets.iter().flatten().count() as f64;
    let sum: f64 = losses.iter().sum();
    match args.inquiry().text("reduction")? {
        "none" => args.write_numbers(0, &losses),
        "sum" => args.write_numbers(0, &[sum]),
        _ => args.write_numbers(0, &[sum / count]),
    }
}

fn cross_entropy_backward(args: &mut Args) -> Result<(), Error> {
    let (x, gradient, session) = (args.f32s(0)?, args.f32s(2)?, args.session);
    let classes = args.inputs[0].shape().columns().max(1);
    let (targets, smoothing) = (targets(args, 1, classes)?, args.inquiry().float("label_smoothing")?);
    let (level, y) = (level(), Span::of(args.output(0)?));
    session.split(targets.len(), GRAIN.div_ceil(classes), &|rows| {
        for row in rows {
            let x = &x[row * classes..(row + 1) * classes];
            // SAFETY: rows are disjoint.
            let y = unsafe { y.part(row * classes..(row + 1) * classes) };
            let Some(target) = targets[row] else {
                y.fill(0.0);
                continue;
            };
            let (max, total) = total(level, x);
            let (scale, even) = (gradient[row] / total, (smoothing / classes as f64) as f32 * gradient[row]);
            y.copy_from_slice(x);
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, Shares { y, max, scale, even }) };
            y[target] -= (1.0 - smoothing) as f32 * gradient[row];
        }
    });
    Ok(())
}

fn cross_entropy_step(args: &mut Args) -> Result<(), Error> {
    let (classes, session) = (args.inquiry().int("classes")?.max(1), args.session);
    let targets = targets(args, 0, classes)?;
    let level = level();
    let (logits, losses) = (Span::of(args.output(0)?), Span::of(args.output(1)?));
    session.split(targets.len(), GRAIN.div_ceil(classes), &|rows| {
        for row in rows {
            // SAFETY: rows are disjoint.
            let (x, loss) = unsafe { (logits.part(row * classes..(row + 1) * classes), losses.part(row..row + 1)) };
            let Some(target) = targets[row] else {
                x.fill(0.0);
                loss[0] = 0.0;
                continue;
            };
            let (max, total) = total(level, x);
            loss[0] = (f64::from(max) + f64::from(total).ln() - f64::from(x[target])) as f32;
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, Shares { y: x, max, scale: 1.0 / total, even: 0.0 }) };
            x[target] -= 1.0;
        }
    });
    Ok(())
}

/// The largest value, and the sum of exponentials of the values less it.
fn total(level: Level, x: &[f32]) -> (f32, f32) {
    let (mut max, mut total) = (0.0, 0.0);
    // SAFETY: the level is this machine's; the kernel asks for nothing else.
    unsafe { dispatch(level, Total { x, max: &mut max, total: &mut total }) };
    (max, total)
}

fn mean(level: Level, x: &[f32]) -> f64 {
    let mut sums = 0.0;
    // SAFETY: as above.
    unsafe { dispatch(level, Mean { x, sums: &mut sums }) };
    sums / x.len() as f64
}

struct Total<'a> {
    x: &'a [f32],
    max: &'a mut f32,
    total: &'a mut f32,
}

impl isa::Kernel for Total<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (max, mut total, mut part) = (largest(self.x), 0.0f64, [0.0f32; PIECE]);
        for piece in self.x.chunks(PIECE) {
            let part = &mut part[..piece.len()];
            for (e, x) in part.iter_mut().zip(piece) {
                *e = if S::LANES > 1 { math::exp::<true>(x - max) } else { math::exp::<false>(x - max) };
            }
            total += f64::from(sum(part, |v| v));
        }
        (*self.max, *self.total) = (max, total as f32);
    }
}

struct Mean<'a> {
    x: &'a [f32],
    sums: &'a mut f64,
}

impl isa::Kernel for Mean<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for piece in self.x.chunks(PIECE) {
            *self.sums += f64::from(sum(piece, |v| v));
        }
    }
}

/// Each value becomes `scale` times the exponential of it less `max`, less `even`.
struct Shares<'a> {
    y: &'a mut [f32],
    max: f32,
    scale: f32,
    even: f32,
}

impl isa::Kernel for Shares<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for y in self.y.iter_mut() {
            let x = *y - self.max;
            let e = if S::LANES > 1 { math::exp::<true>(x) } else { math::exp::<false>(x) };
            *y = e * self.scale - self.even;
        }
    }
}

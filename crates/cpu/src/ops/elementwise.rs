//! Elementwise ops: an interpreter of their expressions over strips that stay in the first-level cache.

use std::ops::Range;

use windlass_ops::elementwise::{Binary, Expr, Unary, parameters, row};
use windlass_ops::{Args, Error, Inquiry};
use windlass_tensor::DType;

use crate::isa::{self, Level, dispatch, level};
use crate::math;
use crate::simd::Simd;
use crate::span::Span;

/// Values of a strip.
const STRIP: usize = 512;

/// Values that one thread takes at a time.
const GRAIN: usize = 8 << 10;

/// Whether every function of an op's expression has vectors here.
pub(super) fn serves(op: &str) -> bool {
    fn all(expr: &Expr) -> bool {
        match expr {
            Expr::Input(_) | Expr::Parameter(_) | Expr::Constant(_) => true,
            Expr::Unary(f, p) => fast(*f) && all(p),
            Expr::Binary(f, p, q) => !matches!(f, Binary::Pow | Binary::Atan2 | Binary::Rem) && all(p) && all(q),
            Expr::Select(c, t, e) => all(c) && all(t) && all(e),
        }
    }
    fn fast(f: Unary) -> bool {
        use Unary::*;
        matches!(f, Neg | Abs | Floor | Ceil | Trunc | Round | Sqrt | Exp | Tanh | Erf | Erfc | Sigmoid)
    }
    row(op).is_some_and(|row| all(&row.expr))
}

pub(super) fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs.iter().any(|t| t.element().dtype() != Some(DType::F32)) {
        return Err("takes F32");
    }
    let largest = q.inputs.iter().map(|t| t.shape().values()).max().unwrap_or(0);
    let whole = |t: &&windlass_tensor::Tensor| {
        let values = t.shape().values();
        // The same shape, or one that repeats: a row that is added to every row.
        values == largest
            || (t.shape().rank() <= 1 && values == q.inputs.iter().map(|t| t.shape().columns()).max().unwrap_or(0))
    };
    if q.inputs.iter().all(whole) { Ok(()) } else { Err("shapes are stretched in the middle") }
}

pub(super) fn run(args: &mut Args) -> Result<(), Error> {
    let Some(row) = row(args.op.name) else { return args.inquiry().fail("is not elementwise") };
    let parameters: Vec<f32> = parameters(row, &args.inquiry())?.into_iter().map(|p| p as f32).collect();
    let inputs = (0..args.inputs.len()).map(|i| args.f32s(i)).collect::<Result<Vec<_>, Error>>()?;
    let (level, session) = (level(), args.session);
    if args.outputs[0].element().dtype() == Some(DType::F32) {
        let y = Span::of(args.output(0)?);
        let count = inputs.iter().map(|x| x.len()).max().unwrap_or(0);
        session.split(count, GRAIN, &|range| {
            // SAFETY: ranges are disjoint.
            let y = unsafe { y.part(range.clone()) };
            strips(level, &row.expr, &inputs, &parameters, range, &mut |at, strip| {
                y[at..at + strip.len()].copy_from_slice(strip);
            });
        });
        return Ok(());
    }
    let mut values = vec![0.0; args.outputs[0].shape().values()];
    let count = values.len();
    strips(level, &row.expr, &inputs, &parameters, 0..count, &mut |at, strip| {
        values[at..at + strip.len()].copy_from_slice(strip);
    });
    args.write(0, &values)
}

/// Evaluates the expression over `range`; `done` takes each strip, with its place in the range.
fn strips<X: AsRef<[f32]>>(
    level: Level,
    expr: &Expr,
    inputs: &[X],
    parameters: &[f32],
    range: Range<usize>,
    done: &mut dyn FnMut(usize, &[f32]),
) {
    let mut scratch = Scratch { level, parameters, free: Vec::new() };
    let mut at = range.start;
    while at < range.end {
        let mut count = STRIP.min(range.end - at);
        let mut strips: [&[f32]; 4] = [&[]; 4];
        for (strip, input) in strips.iter_mut().zip(inputs) {
            let input = input.as_ref();
            // A row that repeats begins anew.
            let from = at % input.len();
            count = count.min(input.len() - from);
            *strip = &input[from..];
        }
        let strips = strips.map(|strip| strip.get(..count).unwrap_or_default());
        let mut out = scratch.take();
        scratch.evaluate(expr, &strips, &mut out[..count]);
        done(at - range.start, &out[..count]);
        scratch.free.push(out);
        at += count;
    }
}

struct Scratch<'a> {
    level: Level,
    parameters: &'a [f32],
    free: Vec<Vec<f32>>,
}

impl Scratch<'_> {
    fn take(&mut self) -> Vec<f32> {
        self.free.pop().unwrap_or_else(|| vec![0.0; STRIP])
    }

    fn evaluate(&mut self, expr: &Expr, inputs: &[&[f32]; 4], out: &mut [f32]) {
        match expr {
            Expr::Input(i) => out.copy_from_slice(inputs[usize::from(*i)]),
            Expr::Parameter(i) => out.fill(self.parameters[usize::from(*i)]),
            Expr::Constant(c) => out.fill(*c),
            Expr::Unary(f, p) => {
                self.evaluate(p, inputs, out);
                // SAFETY: the level is this machine's; the kernel asks for nothing else.
                unsafe { dispatch(self.level, One { f: *f, out }) }
            }
            Expr::Binary(f, p, q) => {
                self.evaluate(p, inputs, out);
                let mut other = self.take();
                // An input is read where it lies.
                let y: &[f32] = if let Expr::Input(i) = q {
                    inputs[usize::from(*i)]
                } else {
                    self.evaluate(q, inputs, &mut other[..out.len()]);
                    &other[..out.len()]
                };
                // SAFETY: as above.
                unsafe { dispatch(self.level, Two { f: *f, out, y }) }
                self.free.push(other);
            }
            Expr::Select(c, t, e) => {
                let (mut condition, mut other) = (self.take(), self.take());
                self.evaluate(c, inputs, &mut condition[..out.len()]);
                self.evaluate(t, inputs, out);
                self.evaluate(e, inputs, &mut other[..out.len()]);
                for ((out, c), e) in out.iter_mut().zip(condition.iter()).zip(other.iter()) {
                    *out = if *c != 0.0 { *out } else { *e };
                }
                self.free.extend([condition, other]);
            }
        }
    }
}

struct One<'a> {
    f: Unary,
    out: &'a mut [f32],
}

impl isa::Kernel for One<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES > 1 { one::<true>(self.f, self.out) } else { one::<false>(self.f, self.out) }
    }
}

#[inline(always)]
fn one<const FMA: bool>(f: Unary, out: &mut [f32]) {
    macro_rules! each {
        ($x:ident => $y:expr) => {
            for v in out.iter_mut() {
                let $x = *v;
                *v = $y;
            }
        };
    }
    match f {
        Unary::Neg => each!(x => -x),
        Unary::Abs => each!(x => x.abs()),
        Unary::Floor => each!(x => x.floor()),
        Unary::Ceil => each!(x => x.ceil()),
        Unary::Trunc => each!(x => x.trunc()),
        Unary::Round => each!(x => x.round_ties_even()),
        Unary::Sqrt => each!(x => x.sqrt()),
        Unary::Exp => each!(x => math::exp::<FMA>(x)),
        Unary::Tanh => each!(x => math::tanh::<FMA>(x)),
        Unary::Erf => each!(x => math::erf::<FMA>(x)),
        Unary::Erfc => each!(x => math::erfc::<FMA>(x)),
        Unary::Sigmoid => each!(x => 1.0 / (1.0 + math::exp::<FMA>(-x))),
        // `serves` admits no other.
        _ => each!(x => f.evaluate(f64::from(x)) as f32),
    }
}

struct Two<'a> {
    f: Binary,
    out: &'a mut [f32],
    y: &'a [f32],
}

impl isa::Kernel for Two<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        macro_rules! each {
            ($x:ident, $y:ident => $z:expr) => {
                for (v, $y) in self.out.iter_mut().zip(self.y) {
                    let ($x, $y) = (*v, *$y);
                    *v = $z;
                }
            };
        }
        let truth = |yes: bool| if yes { 1.0 } else { 0.0 };
        match self.f {
            Binary::Add => each!(x, y => x + y),
            Binary::Sub => each!(x, y => x - y),
            Binary::Mul => each!(x, y => x * y),
            Binary::Div => each!(x, y => x / y),
            Binary::Max => each!(x, y => if x > y || x.is_nan() { x } else { y }),
            Binary::Min => each!(x, y => if x < y || x.is_nan() { x } else { y }),
            Binary::Eq => each!(x, y => truth(x == y)),
            Binary::Ne => each!(x, y => truth(x != y)),
            Binary::Lt => each!(x, y => truth(x < y)),
            Binary::Le => each!(x, y => truth(x <= y)),
            Binary::Gt => each!(x, y => truth(x > y)),
            Binary::Ge => each!(x, y => truth(x >= y)),
            other => each!(x, y => other.evaluate(f64::from(x), f64::from(y)) as f32),
        }
    }
}

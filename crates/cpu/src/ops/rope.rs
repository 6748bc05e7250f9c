//! Rotary position embedding.

use std::cell::RefCell;
use std::ops::Range;

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "rope", supports, run };

/// Tokens that one thread takes at a time: the angles of the first are exact, those after it are turned on from there.
const GRAIN: usize = 16;

/// Values of one token that several threads share.
const SHARED: usize = 32 << 10;

thread_local! {
    /// The turns that this thread used last: keys turn as queries do, in every layer.
    static LAST: RefCell<Turns> = RefCell::default();
}

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, frequencies, q) = (args.f32s(0)?, args.f32s(1)?, args.inquiry());
    let (dim, start) = (q.int("head_dim")?, q.int("start")?);
    let (factor, interleaved) = (q.float("factor")?, q.bool("interleaved")?);
    let way = Way { frequencies: &frequencies, factor, inverse: q.bool("inverse")? };
    let positions = if args.inputs.len() > 2 { Some(args.ints(2)?) } else { None };
    let (columns, session) = (args.inputs[0].shape().columns().max(1), args.session);
    let (level, y) = (level(), Span::of(args.output(0)?));
    let tokens = x.len() / columns;
    session.split(tokens, GRAIN.min(SHARED.div_ceil(columns)), &|range| {
        let mut turns = LAST.take();
        let values = range.start * columns..range.end * columns;
        // SAFETY: ranges of tokens are disjoint.
        let y = unsafe { y.part(values.clone()) };
        let x = &x[values];
        let position = |token: usize| positions.as_ref().map_or((start + token) as i64, |p| p[token]);
        let kernel = Tokens { x, y, turns: &mut turns, way: &way, range, position, columns, dim, interleaved };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, kernel) }
        LAST.set(turns);
    });
    Ok(())
}

/// How all positions turn.
struct Way<'a> {
    frequencies: &'a [f32],
    factor: f64,
    inverse: bool,
}

/// Cosines and sines.
#[derive(Default)]
struct Pairs {
    cos: Vec<f64>,
    sin: Vec<f64>,
}

impl Pairs {
    fn at(position: f64, frequencies: &[f32]) -> Pairs {
        let angles = frequencies.iter().map(|frequency| position * f64::from(*frequency));
        let (sin, cos) = angles.map(f64::sin_cos).unzip();
        Pairs { cos, sin }
    }
}

/// Cosines and sines of a position.
#[derive(Default)]
struct Turns {
    position: i64,
    /// Whether they were not reached by sums.
    direct: bool,
    frequencies: Vec<f32>,
    factor: f64,
    inverse: bool,
    exact: Pairs,
    /// Of one position.
    step: Pairs,
    /// Cosines, then sines, times the factor.
    rounded: Vec<f32>,
}

impl Turns {
    /// To `position`, exactly.
    fn begin(&mut self, position: i64, way: &Way) {
        let same = self.frequencies == way.frequencies && self.factor == way.factor && self.inverse == way.inverse;
        if same && self.position == position && self.direct {
            return;
        }
        if !same {
            (self.frequencies, self.factor, self.inverse) = (way.frequencies.to_vec(), way.factor, way.inverse);
            self.step = Pairs::at(1.0, way.frequencies);
        }
        self.exact = Pairs::at(position as f64, way.frequencies);
        (self.position, self.direct) = (position, true);
        self.rounded.resize(2 * way.frequencies.len(), 0.0);
        self.round();
    }

    #[inline(always)]
    fn round(&mut self) {
        let (cosines, sines) = self.rounded.split_at_mut(self.exact.cos.len());
        let round = |rounded: &mut [f32], exact: &[f64], factor: f64| {
            rounded.iter_mut().zip(exact).for_each(|(rounded, exact)| *rounded = (exact * factor) as f32);
        };
        round(cosines, &self.exact.cos, self.factor);
        round(sines, &self.exact.sin, if self.inverse { -self.factor } else { self.factor });
    }

    /// To the next position, by the sum of angles.
    #[inline(always)]
    fn advance(&mut self) {
        let steps = self.step.cos.iter().zip(&self.step.sin);
        for ((cos, sin), (step_cos, step_sin)) in self.exact.cos.iter_mut().zip(&mut self.exact.sin).zip(steps) {
            (*cos, *sin) = (*cos * step_cos - *sin * step_sin, *sin * step_cos + *cos * step_sin);
        }
        (self.position, self.direct) = (self.position + 1, false);
        self.round();
    }
}

struct Tokens<'a, P> {
    x: &'a [f32],
    y: &'a mut [f32],
    turns: &'a mut Turns,
    way: &'a Way<'a>,
    range: Range<usize>,
    /// The position of a token.
    position: P,
    columns: usize,
    dim: usize,
    interleaved: bool,
}

impl<P: Fn(usize) -> i64> isa::Kernel for Tokens<'_, P> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let first = self.range.start;
        let each = self.x.chunks_exact(self.columns).zip(self.y.chunks_exact_mut(self.columns));
        for (token, (x, y)) in self.range.zip(each) {
            let position = (self.position)(token);
            if token > first && Some(position) == self.turns.position.checked_add(1) {
                self.turns.advance();
            } else {
                self.turns.begin(position, self.way);
            }
            for (x, y) in x.chunks_exact(self.dim).zip(y.chunks_exact_mut(self.dim)) {
                turn(x, y, &self.turns.rounded, self.interleaved);
            }
        }
    }
}

/// One head: its pairs turned, the rest as it is.
#[inline(always)]
fn turn(x: &[f32], y: &mut [f32], turns: &[f32], interleaved: bool) {
    let pairs = turns.len() / 2;
    let (cos, sin) = turns.split_at(pairs);
    if interleaved {
        let each = x[..2 * pairs].chunks_exact(2).zip(y[..2 * pairs].chunks_exact_mut(2));
        for ((x, y), (cos, sin)) in each.zip(cos.iter().zip(sin)) {
            (y[0], y[1]) = (x[0] * cos - x[1] * sin, x[1] * cos + x[0] * sin);
        }
    } else {
        let (a, b) = x[..2 * pairs].split_at(pairs);
        let (first, second) = y[..2 * pairs].split_at_mut(pairs);
        for i in 0..pairs {
            first[i] = a[i] * cos[i] - b[i] * sin[i];
            second[i] = b[i] * cos[i] + a[i] * sin[i];
        }
    }
    y[2 * pairs..].copy_from_slice(&x[2 * pairs..]);
}

//! Softmax over rows.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::math::{self, fold};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const SOFTMAX: Kernel = Kernel { op: "softmax", supports, run };

/// Values that one thread takes at a time.
const GRAIN: usize = 8 << 10;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, columns, session) = (args.f32s(0)?, args.inputs[0].shape().columns().max(1), args.session);
    let (level, y) = (level(), Span::of(args.output(0)?));
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        let values = rows.start * columns..rows.end * columns;
        // SAFETY: ranges of rows are disjoint.
        let y = unsafe { y.part(values.clone()) };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, Rows { x: &x[values], y, columns }) }
    });
    Ok(())
}

struct Rows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    columns: usize,
}

impl isa::Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (x, y) in self.x.chunks_exact(self.columns).zip(self.y.chunks_exact_mut(self.columns)) {
            let max = largest(x);
            let sum = if S::LANES > 1 { exponentials::<true>(x, y, max) } else { exponentials::<false>(x, y, max) };
            let factor = 1.0 / sum;
            y.iter_mut().for_each(|v| *v *= factor);
        }
    }
}

/// The largest value of a row.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let (lines, rest) = x.as_chunks::<16>();
    let mut high = [f32::NEG_INFINITY; 16];
    for line in lines {
        for i in 0..16 {
            high[i] = if line[i] > high[i] { line[i] } else { high[i] };
        }
    }
    let high = fold!(high, a, b => if b > a { b } else { a });
    rest.iter().fold(high, |a, b| if *b > a { *b } else { a })
}

/// Sets `y` to e to the values of `x` less `max`, which none exceeds; gives their sum.
#[inline(always)]
fn exponentials<const FMA: bool>(x: &[f32], y: &mut [f32], max: f32) -> f32 {
    let mut sums = [0.0; LINE];
    let ((lines, rest), (out, out_rest)) = (x.as_chunks(), y.as_chunks_mut());
    for (line, out) in lines.iter().zip(out) {
        *out = exponentials_of_line::<FMA>(*line, max, &mut sums);
    }
    out_rest.copy_from_slice(&exponentials_of_line::<FMA>(filled(rest), max, &mut sums)[..rest.len()]);
    super::norm::sum(&sums, |v| v)
}

/// As `exponentials`, in place.
#[inline(always)]
pub(super) fn exponentials_of<const FMA: bool>(x: &mut [f32], max: f32) -> f32 {
    let mut sums = [0.0; LINE];
    let (lines, rest) = x.as_chunks_mut();
    for line in lines {
        *line = exponentials_of_line::<FMA>(*line, max, &mut sums);
    }
    let count = rest.len();
    rest.copy_from_slice(&exponentials_of_line::<FMA>(filled(rest), max, &mut sums)[..count]);
    super::norm::sum(&sums, |v| v)
}

const LINE: usize = 32;

/// A line that ends with values whose exponentials are zero.
#[inline(always)]
fn filled(rest: &[f32]) -> [f32; LINE] {
    let mut line = [f32::NEG_INFINITY; LINE];
    line[..rest.len()].copy_from_slice(rest);
    line
}

#[inline(always)]
fn exponentials_of_line<const FMA: bool>(mut line: [f32; LINE], max: f32, sums: &mut [f32; LINE]) -> [f32; LINE] {
    for i in 0..LINE {
        line[i] = math::exp_falling::<FMA>(line[i] - max);
        sums[i] += line[i];
    }
    line
}

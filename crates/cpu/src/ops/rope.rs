//! Rotary position embedding.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "rope", supports, run };

/// Values that one thread takes at a time.
const GRAIN: usize = 8 << 10;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, frequencies, q) = (args.f32s(0)?, args.f32s(1)?, args.inquiry());
    let (dim, start) = (q.int("head_dim")?, q.int("start")?);
    let (factor, interleaved) = (q.float("factor")?, q.bool("interleaved")?);
    let sign = if q.bool("inverse")? { -1.0 } else { 1.0 };
    let positions = if args.inputs.len() > 2 { Some(args.ints(2)?) } else { None };
    let (columns, session) = (args.inputs[0].shape().columns().max(1), args.session);
    let (level, y) = (level(), Span::of(args.output(0)?));
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|tokens| {
        let mut turns = vec![0.0; 2 * frequencies.len()];
        for token in tokens {
            let (cos, sin) = turns.split_at_mut(frequencies.len());
            let position = positions.as_ref().map_or((start + token) as f64, |p| p[token] as f64);
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&*frequencies) {
                let (s, c) = (sign * position * f64::from(*frequency)).sin_cos();
                (*cos, *sin) = ((c * factor) as f32, (s * factor) as f32);
            }
            let values = token * columns..(token + 1) * columns;
            // SAFETY: tokens are disjoint.
            let y = unsafe { y.part(values.clone()) };
            let kernel = Token { x: &x[values], y, turns: &turns, dim, interleaved };
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, kernel) }
        }
    });
    Ok(())
}

struct Token<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    /// Cosines, then sines.
    turns: &'a [f32],
    dim: usize,
    interleaved: bool,
}

impl isa::Kernel for Token<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let pairs = self.turns.len() / 2;
        let (cos, sin) = self.turns.split_at(pairs);
        for (x, y) in self.x.chunks_exact(self.dim).zip(self.y.chunks_exact_mut(self.dim)) {
            if self.interleaved {
                let each = x[..2 * pairs].chunks_exact(2).zip(y[..2 * pairs].chunks_exact_mut(2));
                for ((x, y), (cos, sin)) in each.zip(cos.iter().zip(sin)) {
                    (y[0], y[1]) = (x[0] * cos - x[1] * sin, x[1] * cos + x[0] * sin);
                }
            } else {
                let (a, b) = (&x[..pairs], &x[pairs..2 * pairs]);
                let (first, second) = y[..2 * pairs].split_at_mut(pairs);
                for i in 0..pairs {
                    first[i] = a[i] * cos[i] - b[i] * sin[i];
                    second[i] = b[i] * cos[i] + a[i] * sin[i];
                }
            }
            y[2 * pairs..].copy_from_slice(&x[2 * pairs..]);
        }
    }
}

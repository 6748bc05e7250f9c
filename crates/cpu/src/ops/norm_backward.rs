//! What flows back through a root mean square norm.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use super::norm::sum;
use crate::isa::{self, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const KERNEL: Kernel = Kernel { op: "rms_norm_backward", supports, run };

/// Values that one thread takes at a time.
const GRAIN: usize = 16 << 10;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = |t: &&windlass_tensor::Tensor| t.element().dtype() == Some(DType::F32);
    if q.inputs.iter().take(2).all(f32) && q.inputs.len() > 2 { Ok(()) } else { Err("takes F32 and a weight") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (x, g, weight, q) = (args.f32s(0)?, args.f32s(1)?, args.f32s(2)?, args.inquiry());
    let (eps, offset) = (q.float("eps")? as f32, q.float("offset")? as f32);
    let (columns, session, level) = (args.inputs[0].shape().columns().max(1), args.session, level());
    let gain: Vec<f32> = weight.iter().map(|w| w + offset).collect();
    let rows = x.len() / columns;
    let mut factors = vec![0.0; rows];
    let (dx, into) = (Span::of(args.output(0)?), Span::of(&mut factors));
    session.split(rows, GRAIN.div_ceil(columns), &|rows| {
        let values = rows.start * columns..rows.end * columns;
        // SAFETY: ranges of rows are disjoint.
        let (dx, factors) = unsafe { (dx.part(values.clone()), into.part(rows)) };
        let kernel = Rows { x: &x[values.clone()], g: &g[values], gain: &gain, eps, dx, factors };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, kernel) }
    });
    if args.outputs.len() < 2 {
        return Ok(());
    }
    let dw = Span::of(args.output(1)?);
    session.split(columns, 64, &|range| {
        // SAFETY: ranges of columns are disjoint.
        let dw = unsafe { dw.part(range.clone()) };
        dw.fill(0.0);
        for (row, factor) in factors.iter().enumerate() {
            let at = row * columns + range.start..row * columns + range.end;
            let each = dw.iter_mut().zip(&x[at.clone()]).zip(&g[at]);
            each.for_each(|((dw, x), g)| *dw += g * x * factor);
        }
    });
    Ok(())
}

struct Rows<'a> {
    x: &'a [f32],
    g: &'a [f32],
    gain: &'a [f32],
    eps: f32,
    dx: &'a mut [f32],
    /// 1 / sqrt(mean(x^2) + eps) of each row.
    factors: &'a mut [f32],
}

impl isa::Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let columns = self.gain.len();
        let rows = self.x.chunks_exact(columns).zip(self.g.chunks_exact(columns));
        for (((x, g), dx), factor) in rows.zip(self.dx.chunks_exact_mut(columns)).zip(self.factors) {
            let r = 1.0 / (sum(x, |v| v * v) / columns as f32 + self.eps).sqrt();
            for ((dx, g), w) in dx.iter_mut().zip(g).zip(self.gain) {
                *dx = g * w;
            }
            let mut along = [0.0f32; 32];
            let (lines, rest) = x.as_chunks::<32>();
            let (of_gradient, rest_of_gradient) = dx.as_chunks::<32>();
            for (x, g) in lines.iter().zip(of_gradient) {
                for i in 0..32 {
                    along[i] += x[i] * g[i];
                }
            }
            let rest: f32 = rest.iter().zip(rest_of_gradient).map(|(x, g)| x * g).sum();
            let mean = (along.iter().sum::<f32>() + rest) / columns as f32;
            let by = r * r * mean;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = r * (*dx - x * by);
            }
            *factor = r;
        }
    }
}

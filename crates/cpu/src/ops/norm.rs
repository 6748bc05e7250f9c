//! Norms over rows.

use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::math::fold;
use crate::simd::Simd;
use crate::span::Span;

pub(super) const RMS_NORM: Kernel = Kernel { op: "rms_norm", supports, run: rms_norm };
pub(super) const LAYER_NORM: Kernel = Kernel { op: "layer_norm", supports, run: layer_norm };

/// Values that one thread takes at a time.
const GRAIN: usize = 16 << 10;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let f32 = |t: &&windlass_tensor::Tensor| t.element().dtype() == Some(DType::F32);
    if f32(&q.inputs[0]) && q.inputs.len() > 1 { Ok(()) } else { Err("takes F32 and a weight") }
}

fn rms_norm(args: &mut Args) -> Result<(), Error> {
    norm(args, args.inquiry().float("offset")? as f32, false)
}

fn layer_norm(args: &mut Args) -> Result<(), Error> {
    norm(args, 0.0, true)
}

fn norm(args: &mut Args, offset: f32, centred: bool) -> Result<(), Error> {
    let (x, weight, eps) = (args.f32s(0)?, args.f32s(1)?, args.inquiry().float("eps")? as f32);
    let bias = if args.inputs.len() > 2 { Some(args.f32s(2)?) } else { None };
    let (columns, session) = (args.inputs[0].shape().columns().max(1), args.session);
    let gain: Vec<f32> = weight.iter().map(|w| w + offset).collect();
    let (level, y) = (level(), Span::of(args.output(0)?));
    session.split(x.len() / columns, GRAIN.div_ceil(columns), &|rows| {
        let values = rows.start * columns..rows.end * columns;
        // SAFETY: ranges of rows are disjoint.
        let y = unsafe { y.part(values.clone()) };
        let kernel = Rows { x: &x[values], y, gain: &gain, bias: bias.as_deref(), eps, centred };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, kernel) }
    });
    Ok(())
}

struct Rows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    gain: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    centred: bool,
}

impl isa::Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let columns = self.gain.len();
        for (x, y) in self.x.chunks_exact(columns).zip(self.y.chunks_exact_mut(columns)) {
            let count = columns as f32;
            let mean = if self.centred { sum(x, |v| v) / count } else { 0.0 };
            let factor = 1.0 / (sum(x, |v| (v - mean) * (v - mean)) / count + self.eps).sqrt();
            for ((y, x), gain) in y.iter_mut().zip(x).zip(self.gain) {
                *y = (x - mean) * factor * gain;
            }
            if let Some(bias) = self.bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }
}

/// The sum of `f` over a row, in 32 partial sums: vectors, and small errors.
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (lines, rest) = x.as_chunks::<32>();
    let mut sums = [0.0f32; 32];
    for line in lines {
        for i in 0..32 {
            sums[i] += f(line[i]);
        }
    }
    for (sum, v) in sums.iter_mut().zip(rest) {
        *sum += f(*v);
    }
    let mut half = [0.0f32; 16];
    for i in 0..16 {
        half[i] = sums[i] + sums[i + 16];
    }
    fold!(half, a, b => a + b)
}

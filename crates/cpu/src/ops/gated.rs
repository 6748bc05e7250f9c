//! Gated units: an activation of one half times the other, in one pass.

use windlass_ops::{Args, Error, Kernel};

use super::elementwise::{self, supports};
use crate::isa::{self, dispatch, level};
use crate::math;
use crate::simd::Simd;
use crate::span::Span;

pub(super) const KERNELS: [Kernel; 3] = [
    Kernel { op: "swiglu", supports, run: |args| run(args, Gate::Silu) },
    Kernel { op: "geglu", supports, run: |args| run(args, Gate::Gelu) },
    Kernel { op: "geglu_tanh", supports, run: |args| run(args, Gate::GeluTanh) },
];

/// Values that one thread takes at a time.
const GRAIN: usize = 4 << 10;

#[derive(Clone, Copy)]
enum Gate {
    Silu,
    Gelu,
    GeluTanh,
}

fn run(args: &mut Args, gate: Gate) -> Result<(), Error> {
    let [x, y] = args.inputs else { return elementwise::run(args) };
    let plain = args.outputs[0].element() == x.element();
    if x.shape() != y.shape() || !plain {
        return elementwise::run(args);
    }
    let (x, y) = (args.f32s(0)?, args.f32s(1)?);
    let (level, session) = (level(), args.session);
    let out = Span::of(args.output(0)?);
    session.split(x.len(), GRAIN, &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(range.clone()) };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, Strip { gate, x: &x[range.clone()], y: &y[range], out }) }
    });
    Ok(())
}

struct Strip<'a> {
    gate: Gate,
    x: &'a [f32],
    y: &'a [f32],
    out: &'a mut [f32],
}

impl isa::Kernel for Strip<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::LANES > 1 { self.each::<true>() } else { self.each::<false>() }
    }
}

impl Strip<'_> {
    #[inline(always)]
    fn each<const FMA: bool>(self) {
        let all = self.out.iter_mut().zip(self.x).zip(self.y);
        match self.gate {
            Gate::Silu => all.for_each(|((out, x), y)| *out = x / (1.0 + math::exp::<FMA>(-x)) * y),
            Gate::Gelu => all.for_each(|((out, x), y)| {
                *out = 0.5 * x * math::erfc::<FMA>(-x / std::f32::consts::SQRT_2) * y;
            }),
            Gate::GeluTanh => all.for_each(|((out, x), y)| {
                // Half of 1 + tanh(u) is 1 / (1 + exp(-2 u)), which keeps its digits where it is small.
                let twice = 1.595_769 * (x + 0.044_715 * (x * (x * x)));
                *out = x / (1.0 + math::exp::<FMA>(-twice)) * y;
            }),
        }
    }
}

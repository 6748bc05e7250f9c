//! Steps of optimizers, where the parameters are.

use windlass_ops::library::Adam;
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

pub(super) const ADAM: Kernel = Kernel { op: "adam_step", supports, run };

/// Values that one thread takes at a time.
const GRAIN: usize = 16 << 10;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let (adam, gradient) = (Adam::of(&args.inquiry())?, args.f32s(0)?);
    let (session, level) = (args.session, level());
    let state = [Span::of(args.output(0)?), Span::of(args.output(1)?), Span::of(args.output(2)?)];
    session.split(gradient.len(), GRAIN, &|range| {
        // SAFETY: ranges are disjoint, outputs are three tensors.
        let [parameter, mean, square] = [0, 1, 2].map(|i| unsafe { state[i].part(range.clone()) });
        let kernel = Step { adam: &adam, gradient: &gradient[range], parameter, mean, square };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, kernel) }
    });
    Ok(())
}

struct Step<'a> {
    adam: &'a Adam,
    gradient: &'a [f32],
    parameter: &'a mut [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
}

impl isa::Kernel for Step<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.adam;
        let (keep, joined) = match a.decoupled {
            true => ((1.0 - a.learning_rate * a.weight_decay) as f32, 0.0),
            false => (1.0, a.weight_decay as f32),
        };
        let (to_mean, beta2, to_square) = ((1.0 - a.beta1) as f32, a.beta2 as f32, (1.0 - a.beta2) as f32);
        let (root, epsilon) = ((1.0 / a.corrections[1].sqrt()) as f32, a.epsilon as f32);
        let rate = (a.learning_rate / a.corrections[0]) as f32;
        let state = self.parameter.iter_mut().zip(self.mean).zip(self.square);
        for (((p, m), v), g) in state.zip(self.gradient) {
            let g = g + joined * *p;
            *m += (g - *m) * to_mean;
            *v = *v * beta2 + to_square * g * g;
            *p = *p * keep - rate * *m / (v.sqrt() * root + epsilon);
        }
    }
}

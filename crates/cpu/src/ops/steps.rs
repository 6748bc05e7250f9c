//! Steps of optimizers, where the parameters are.

use windlass_ops::library::steps::{
    Adadelta, Adagrad, Adam, BLOCK, Block, Centered, Lion, Momentum, Number, RmsProp, Rule, Sgd, planes,
};
use windlass_ops::{Args, Error, Inquiry, Kernel};
use windlass_tensor::DType;

use crate::isa::{self, dispatch, level};
use crate::simd::Simd;
use crate::span::Span;

/// Adding a rule costs a line.
pub(super) const KERNELS: [Kernel; 9] = [
    Kernel { op: "adam_step", supports, run: run::<Adam, 3> },
    Kernel { op: "adam8_step", supports, run: eight },
    Kernel { op: "sgd_step", supports, run: run::<Sgd, 1> },
    Kernel { op: "momentum_step", supports, run: run::<Momentum, 2> },
    Kernel { op: "rmsprop_step", supports, run: run::<RmsProp, 2> },
    Kernel { op: "rmsprop_centered_step", supports, run: run::<Centered, 4> },
    Kernel { op: "adagrad_step", supports, run: run::<Adagrad, 2> },
    Kernel { op: "adadelta_step", supports, run: run::<Adadelta, 3> },
    Kernel { op: "lion_step", supports, run: run::<Lion, 2> },
];

/// Values that one thread takes at a time.
const GRAIN: usize = 16 << 10;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    if q.inputs[0].element().dtype() == Some(DType::F32) { Ok(()) } else { Err("takes F32") }
}

fn run<R: Rule<N>, const N: usize>(args: &mut Args) -> Result<(), Error> {
    let (rule, gradient) = (R::of(&args.inquiry())?, args.f32s(0)?);
    let (session, level) = (args.session, level());
    let mut spans = Vec::with_capacity(N);
    for k in 0..N {
        spans.push(Span::of(args.output(k)?));
    }
    session.split(gradient.len(), GRAIN, &|range| {
        // SAFETY: ranges are disjoint, outputs are different tensors of as many values as the gradient.
        let tensors = std::array::from_fn(|k| unsafe { spans[k].part(range.clone()) });
        let kernel = Step { rule: &rule, gradient: &gradient[range], tensors };
        // SAFETY: the level is this machine's; the kernel asks for nothing else.
        unsafe { dispatch(level, kernel) }
    });
    Ok(())
}

struct Step<'a, R, const N: usize> {
    rule: &'a R,
    gradient: &'a [f32],
    tensors: [&'a mut [f32]; N],
}

impl<R: Rule<N>, const N: usize> isa::Kernel for Step<'_, R, N> {
    // Iterators over arrays of tensors are not taken apart here.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (rule, count) = (*self.rule, self.gradient.len());
        let whole = count - count % S::ROWS;
        for at in (0..whole).step_by(S::ROWS) {
            // SAFETY: a vector from `at` on lies within all slices, which have `count` values; the level has `S`.
            unsafe {
                let mut old = [V::<S>(S::zero()); N];
                for k in 0..N {
                    old[k] = V(S::load_float(self.tensors[k].as_ptr().add(at)));
                }
                let new = rule.step(old, V::<S>(S::load_float(self.gradient.as_ptr().add(at))));
                for k in 0..N {
                    S::store_float(self.tensors[k].as_mut_ptr().add(at), new[k].0);
                }
            }
        }
        for at in whole..count {
            let mut old = [0.0; N];
            for k in 0..N {
                old[k] = self.tensors[k][at];
            }
            let new = rule.step(old, self.gradient[at]);
            for k in 0..N {
                self.tensors[k][at] = new[k];
            }
        }
    }
}

/// A vector that formulas are computed with, where the processor has its instructions.
struct V<S: Simd>(S::F);

impl<S: Simd> Clone for V<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for V<S> {}

macro_rules! operator {
    ($trait:ident, $function:ident) => {
        impl<S: Simd> std::ops::$trait for V<S> {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                // SAFETY: a vector exists only where a kernel of these instructions runs.
                V(unsafe { S::$function(self.0, other.0) })
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl<S: Simd> Number for V<S> {
    #[inline(always)]
    fn of(value: f64) -> Self {
        // SAFETY: as above.
        V(unsafe { S::splat(value as f32) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: as above.
        V(unsafe { S::sqrt(self.0) })
    }
    #[inline(always)]
    fn sign(self) -> Self {
        // SAFETY: as above.
        V(unsafe { S::sign(self.0) })
    }
}

fn eight(args: &mut Args) -> Result<(), Error> {
    let (adam, gradient) = (<Adam as Rule<3>>::of(&args.inquiry())?, args.f32s(0)?);
    let (session, level) = (args.session, level());
    let [p, a, b, c, d] = planes(args)?;
    let floats = |bytes: &mut [u8]| Span::of(bytemuck::try_cast_slice_mut::<u8, f32>(bytes).unwrap_or_default());
    let (p, scales, codes) = (floats(p), [floats(c), floats(d)], [Span::of(a), Span::of(b)]);
    session.split(gradient.len().div_ceil(BLOCK), GRAIN / BLOCK, &|blocks| {
        for block in blocks {
            let range = block * BLOCK..((block + 1) * BLOCK).min(gradient.len());
            // SAFETY: blocks are disjoint, outputs are different tensors.
            let (parameter, [a, b], [c, d]) = unsafe {
                let scale = |i: usize| &mut scales[i].part(block..block + 1)[0];
                (
                    p.part(range.clone()),
                    [codes[0].part(range.clone()), codes[1].part(range.clone())],
                    [scale(0), scale(1)],
                )
            };
            let block = Block { gradient: &gradient[range], parameter, codes: [a, b], scales: [c, d] };
            // SAFETY: the level is this machine's; the kernel asks for nothing else.
            unsafe { dispatch(level, Eight { adam: &adam, block }) }
        }
    });
    Ok(())
}

struct Eight<'a> {
    adam: &'a Adam,
    block: Block<'a>,
}

impl isa::Kernel for Eight<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.block.step(self.adam);
    }
}

//! Steps of optimizers: ops that change the parameter and its state where they are.
//!
//! A step that treats every value alone is a [`Rule`]: its formula, written once over any [`Number`]. The reference computes it
//! in double precision, a provider in whatever its vectors hold.

use windlass_tensor::DType;

use crate::op::{Inquiry, OutputSpec};
use crate::{Args, Error};

mod eight;
mod rules;

pub use eight::{ADAM8_STEP, BLOCK, Block, Codes, planes};
pub use rules::{
    ADADELTA_STEP, ADAGRAD_STEP, ADAM_STEP, Adadelta, Adagrad, Adam, CENTERED_STEP, Centered, LION_STEP, Lion,
    MOMENTUM_STEP, Momentum, RMSPROP_STEP, RmsProp, SGD_STEP, Sgd,
};

/// What formulas of steps are written over.
pub trait Number:
    Copy
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    /// A number of the call.
    fn of(value: f64) -> Self;
    fn sqrt(self) -> Self;
    /// -1, 0 or 1.
    fn sign(self) -> Self;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn sign(self) -> Self {
                let up = if self > 0.0 { 1.0 } else { 0.0 };
                let down = if self < 0.0 { 1.0 } else { 0.0 };
                up - down
            }
        }
    };
}
number!(f32);
number!(f64);

/// How one value of a parameter changes, with its state: `N` tensors in all, of which the first is the parameter.
pub trait Rule<const N: usize>: Copy + Sync {
    /// As a call says.
    fn of(q: &Inquiry) -> Result<Self, Error>;

    /// The new values for the old ones and a gradient.
    fn step<T: Number>(&self, old: [T; N], gradient: T) -> [T; N];
}

/// The specification of a rule.
fn reference<R: Rule<N>, const N: usize>(args: &mut Args) -> Result<(), Error> {
    let rule = R::of(&args.inquiry())?;
    let gradient = args.f32s(0)?.into_owned();
    let mut tensors = Vec::with_capacity(N);
    for k in 0..N {
        tensors.push(args.output(k)?.to_vec());
    }
    for (i, gradient) in gradient.iter().enumerate() {
        let mut old = [0.0f64; N];
        for (old, tensor) in old.iter_mut().zip(&tensors) {
            *old = f64::from(tensor[i]);
        }
        for (tensor, new) in tensors.iter_mut().zip(rule.step(old, f64::from(*gradient))) {
            tensor[i] = new as f32;
        }
    }
    tensors.iter().enumerate().try_for_each(|(k, values)| args.write(k, values))
}

/// As many outputs like the gradient, which begin as zeros where there were none.
fn same(q: &Inquiry, count: usize) -> Result<Vec<OutputSpec>, Error> {
    Ok(vec![OutputSpec::new(DType::F32, q.shape(0)?).zeroed(); count])
}

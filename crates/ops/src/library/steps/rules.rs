//! Steps that treat every value alone.

use super::{Number, Rule, reference, same};
use crate::op::{Input, Inquiry};
use crate::survey::Profile;
use crate::{Attribute, Attributes, Error, Gradient, Op, Tolerance};

/// An op whose outputs are `$count` tensors of F32, the parameter first.
macro_rules! step {
    ($op:ident, $name:literal, $about:literal, $rule:ty, $count:literal, $attributes:expr, $tried:expr) => {
        #[doc = concat!("`", $name, "`: ", $about, ".")]
        pub static $op: Op = Op {
            name: $name,
            about: $about,
            inputs: &[Input::new("gradient")],
            attributes: $attributes,
            outputs: |q| same(q, $count),
            reference: reference::<$rule, $count>,
            gradient: Gradient::Refused("it is a step of an optimizer"),
            tolerance: Tolerance { relative: 1e-5, absolute: 1e-7 },
            profiles: |_| {
                let how: Attributes = $tried.float("learning_rate", 1e-2).float("weight_decay", 0.1);
                vec![
                    Profile::new("matrix").normal(&[3, 171]).attributes(how.clone()),
                    Profile::new("row").normal(&[65]).attributes(how),
                ]
            },
        };
    };
}

const RATE: Attribute = Attribute::required("learning_rate");
const DECAY: Attribute = Attribute::float("weight_decay", 0.0);

pub(super) const ADAM_ATTRIBUTES: &[Attribute] = &[
    RATE,
    Attribute::float("beta1", 0.9),
    Attribute::float("beta2", 0.999),
    Attribute::float("epsilon", 1e-8),
    DECAY,
    // Whether decay is no part of the gradient.
    Attribute::bool("decoupled", true),
    // Which step it is, from 1 on.
    Attribute::required("step"),
];

/// Adam (arXiv 1412.6980), and AdamW (arXiv 1711.05101) where `decoupled`.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    pub decoupled: bool,
    /// 1 less the powers of both betas.
    pub corrections: [f64; 2],
}

step!(
    ADAM_STEP,
    "adam_step",
    "changes parameter, mean and mean square by a gradient",
    Adam,
    3,
    ADAM_ATTRIBUTES,
    Attributes::new().int("step", 3)
);

impl Rule<3> for Adam {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        let (beta1, beta2, step) = (q.float("beta1")?, q.float("beta2")?, q.int("step")?);
        if step == 0 {
            return q.fail("steps are counted from 1 on");
        }
        let power = |beta: f64| 1.0 - beta.powi(step.min(i32::MAX as usize) as i32);
        Ok(Self {
            learning_rate: q.float("learning_rate")?,
            beta1,
            beta2,
            epsilon: q.float("epsilon")?,
            weight_decay: q.float("weight_decay")?,
            decoupled: q.bool("decoupled")?,
            corrections: [power(beta1), power(beta2)],
        })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, m, v]: [T; 3], g: T) -> [T; 3] {
        let (keep, joined) = match self.decoupled {
            true => (1.0 - self.learning_rate * self.weight_decay, 0.0),
            false => (1.0, self.weight_decay),
        };
        let g = g + T::of(joined) * p;
        let m = m + (g - m) * T::of(1.0 - self.beta1);
        let v = v * T::of(self.beta2) + T::of(1.0 - self.beta2) * g * g;
        let size = v.sqrt() * T::of(1.0 / self.corrections[1].sqrt()) + T::of(self.epsilon);
        let rate = T::of(self.learning_rate / self.corrections[0]);
        [p * T::of(keep) - rate * m / size, m, v]
    }
}

/// Plain descent.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    pub learning_rate: f64,
    pub weight_decay: f64,
}

step!(SGD_STEP, "sgd_step", "changes a parameter by a gradient", Sgd, 1, &[RATE, DECAY], Attributes::new());

impl Rule<1> for Sgd {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        Ok(Self { learning_rate: q.float("learning_rate")?, weight_decay: q.float("weight_decay")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p]: [T; 1], g: T) -> [T; 1] {
        [p - T::of(self.learning_rate) * (g + T::of(self.weight_decay) * p)]
    }
}

/// Descent along a running sum of gradients.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    sgd: Sgd,
    momentum: f64,
    /// How much of the sum stays, and how much of the gradient comes in.
    sum: [f64; 2],
    nesterov: bool,
}

step!(
    MOMENTUM_STEP,
    "momentum_step",
    "changes parameter and running sum of gradients by a gradient",
    Momentum,
    2,
    &[
        RATE,
        DECAY,
        Attribute::required("momentum"),
        Attribute::float("dampening", 0.0),
        Attribute::bool("nesterov", false),
        // Whether there were no steps before.
        Attribute::bool("first", false),
    ],
    Attributes::new().float("momentum", 0.9).bool("nesterov", true)
);

impl Rule<2> for Momentum {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        let momentum = q.float("momentum")?;
        let sum = if q.bool("first")? { [0.0, 1.0] } else { [momentum, 1.0 - q.float("dampening")?] };
        Ok(Self { sgd: <Sgd as Rule<1>>::of(q)?, momentum, sum, nesterov: q.bool("nesterov")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, sum]: [T; 2], g: T) -> [T; 2] {
        let g = g + T::of(self.sgd.weight_decay) * p;
        let sum = T::of(self.sum[0]) * sum + T::of(self.sum[1]) * g;
        let (of_gradient, of_sum) = if self.nesterov { (1.0, self.momentum) } else { (0.0, 1.0) };
        let way = T::of(of_gradient) * g + T::of(of_sum) * sum;
        [p - T::of(self.sgd.learning_rate) * way, sum]
    }
}

/// RMSprop: descent divided by a running mean square.
#[derive(Clone, Copy, Debug)]
pub struct RmsProp {
    sgd: Sgd,
    alpha: f64,
    epsilon: f64,
}

step!(
    RMSPROP_STEP,
    "rmsprop_step",
    "changes parameter and mean square by a gradient",
    RmsProp,
    2,
    &[RATE, DECAY, Attribute::float("alpha", 0.99), Attribute::float("epsilon", 1e-8)],
    Attributes::new()
);

impl Rule<2> for RmsProp {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        Ok(Self { sgd: <Sgd as Rule<1>>::of(q)?, alpha: q.float("alpha")?, epsilon: q.float("epsilon")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, v]: [T; 2], g: T) -> [T; 2] {
        let g = g + T::of(self.sgd.weight_decay) * p;
        let v = v * T::of(self.alpha) + T::of(1.0 - self.alpha) * g * g;
        [p - T::of(self.sgd.learning_rate) * g / (v.sqrt() + T::of(self.epsilon)), v]
    }
}

/// RMSprop with a running sum of its steps, or around the running mean of gradients (arXiv 1308.0850), or both.
#[derive(Clone, Copy, Debug)]
pub struct Centered {
    rms: RmsProp,
    momentum: f64,
    centered: bool,
}

step!(
    CENTERED_STEP,
    "rmsprop_centered_step",
    "changes parameter, mean square, mean and running sum of steps by a gradient",
    Centered,
    4,
    &[
        RATE,
        DECAY,
        Attribute::float("alpha", 0.99),
        Attribute::float("epsilon", 1e-8),
        Attribute::float("momentum", 0.0),
        Attribute::bool("centered", true),
    ],
    Attributes::new().float("momentum", 0.9)
);

impl Rule<4> for Centered {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        let rms = <RmsProp as Rule<2>>::of(q)?;
        Ok(Self { rms, momentum: q.float("momentum")?, centered: q.bool("centered")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, v, m, sum]: [T; 4], g: T) -> [T; 4] {
        let RmsProp { sgd, alpha, epsilon } = self.rms;
        let g = g + T::of(sgd.weight_decay) * p;
        let v = v * T::of(alpha) + T::of(1.0 - alpha) * g * g;
        let m = m + (g - m) * T::of(1.0 - alpha);
        let spread = v - T::of(if self.centered { 1.0 } else { 0.0 }) * m * m;
        let sum = T::of(self.momentum) * sum + g / (spread.sqrt() + T::of(epsilon));
        [p - T::of(sgd.learning_rate) * sum, v, m, sum]
    }
}

/// Adagrad (JMLR 12, 2121): descent divided by the root of the sum of squares.
#[derive(Clone, Copy, Debug)]
pub struct Adagrad {
    sgd: Sgd,
    epsilon: f64,
}

step!(
    ADAGRAD_STEP,
    "adagrad_step",
    "changes parameter and sum of squares by a gradient",
    Adagrad,
    2,
    &[RATE, DECAY, Attribute::float("epsilon", 1e-10)],
    Attributes::new()
);

impl Rule<2> for Adagrad {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        Ok(Self { sgd: <Sgd as Rule<1>>::of(q)?, epsilon: q.float("epsilon")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, sum]: [T; 2], g: T) -> [T; 2] {
        let g = g + T::of(self.sgd.weight_decay) * p;
        let sum = sum + g * g;
        [p - T::of(self.sgd.learning_rate) * g / (sum.sqrt() + T::of(self.epsilon)), sum]
    }
}

/// Adadelta (arXiv 1212.5701): steps as large as those before, divided by the size of gradients.
#[derive(Clone, Copy, Debug)]
pub struct Adadelta {
    sgd: Sgd,
    rho: f64,
    epsilon: f64,
}

step!(
    ADADELTA_STEP,
    "adadelta_step",
    "changes parameter, mean square of gradients and of steps by a gradient",
    Adadelta,
    3,
    &[RATE, DECAY, Attribute::float("rho", 0.9), Attribute::float("epsilon", 1e-6)],
    Attributes::new()
);

impl Rule<3> for Adadelta {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        Ok(Self { sgd: <Sgd as Rule<1>>::of(q)?, rho: q.float("rho")?, epsilon: q.float("epsilon")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, square, steps]: [T; 3], g: T) -> [T; 3] {
        let (epsilon, keep, new) = (T::of(self.epsilon), T::of(self.rho), T::of(1.0 - self.rho));
        let g = g + T::of(self.sgd.weight_decay) * p;
        let square = square * keep + new * g * g;
        let step = (steps + epsilon).sqrt() / (square + epsilon).sqrt() * g;
        let steps = steps * keep + new * step * step;
        [p - T::of(self.sgd.learning_rate) * step, square, steps]
    }
}

/// Lion (arXiv 2302.06675): steps of one size along the sign of a mean.
#[derive(Clone, Copy, Debug)]
pub struct Lion {
    sgd: Sgd,
    beta1: f64,
    beta2: f64,
}

step!(
    LION_STEP,
    "lion_step",
    "changes parameter and mean by a gradient",
    Lion,
    2,
    &[RATE, DECAY, Attribute::float("beta1", 0.9), Attribute::float("beta2", 0.99)],
    Attributes::new()
);

impl Rule<2> for Lion {
    fn of(q: &Inquiry) -> Result<Self, Error> {
        Ok(Self { sgd: <Sgd as Rule<1>>::of(q)?, beta1: q.float("beta1")?, beta2: q.float("beta2")? })
    }

    #[inline(always)]
    fn step<T: Number>(&self, [p, m]: [T; 2], g: T) -> [T; 2] {
        let way = (m * T::of(self.beta1) + g * T::of(1.0 - self.beta1)).sign();
        let kept = p * T::of(1.0 - self.sgd.learning_rate * self.sgd.weight_decay);
        [kept - T::of(self.sgd.learning_rate) * way, m * T::of(self.beta2) + g * T::of(1.0 - self.beta2)]
    }
}

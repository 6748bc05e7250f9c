//! Steps of optimizers: ops that change the parameter and its state where they are.

use windlass_tensor::DType;

use crate::op::{Input, Inquiry, OutputSpec};
use crate::survey::Profile;
use crate::{Attribute, Attributes, Error, Gradient, Op, Tolerance};

/// Adam (arXiv 1412.6980), and AdamW (arXiv 1711.05101) where `decoupled`.
pub static ADAM_STEP: Op = Op {
    name: "adam_step",
    about: "changes parameter, mean and mean square by a gradient",
    // Outputs are the parameter, the running mean of its gradients and that of their squares, all F32.
    inputs: &[Input::new("gradient")],
    attributes: &[
        Attribute::required("learning_rate"),
        Attribute::float("beta1", 0.9),
        Attribute::float("beta2", 0.999),
        Attribute::float("epsilon", 1e-8),
        Attribute::float("weight_decay", 0.0),
        // Whether decay is no part of the gradient.
        Attribute::bool("decoupled", true),
        // Which step it is, from 1 on.
        Attribute::required("step"),
    ],
    outputs: |q| same(q, 3),
    reference: |args| {
        let adam = Adam::of(&args.inquiry())?;
        let gradient = args.f32s(0)?.into_owned();
        let mut state = [args.output(0)?.to_vec(), args.output(1)?.to_vec(), args.output(2)?.to_vec()];
        let [parameter, mean, square] = &mut state;
        for (i, gradient) in gradient.iter().enumerate() {
            let [p, m, v] = adam.step([parameter[i], mean[i], square[i]].map(f64::from), f64::from(*gradient));
            (parameter[i], mean[i], square[i]) = (p as f32, m as f32, v as f32);
        }
        state.iter().enumerate().try_for_each(|(i, values)| args.write(i, values))
    },
    gradient: Gradient::Refused("it is a step of an optimizer"),
    tolerance: Tolerance { relative: 1e-5, absolute: 1e-7 },
    profiles: |_| {
        let how = Attributes::new().float("learning_rate", 1e-2).int("step", 3).float("weight_decay", 0.1);
        vec![
            Profile::new("decoupled").normal(&[3, 171]).attributes(how.clone()),
            Profile::new("joined").normal(&[65]).attributes(how.bool("decoupled", false)),
        ]
    },
};

/// The numbers of a step of Adam.
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

impl Adam {
    /// As a call says.
    pub fn of(q: &Inquiry) -> Result<Self, Error> {
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

    /// One value: parameter, mean and mean square.
    pub fn step(&self, [p, m, v]: [f64; 3], gradient: f64) -> [f64; 3] {
        let (p, gradient) = match self.decoupled {
            true => (p * (1.0 - self.learning_rate * self.weight_decay), gradient),
            false => (p, gradient + self.weight_decay * p),
        };
        let m = m + (gradient - m) * (1.0 - self.beta1);
        let v = v * self.beta2 + (1.0 - self.beta2) * gradient * gradient;
        let size = v.sqrt() / self.corrections[1].sqrt() + self.epsilon;
        [p - self.learning_rate / self.corrections[0] * m / size, m, v]
    }
}

/// As many outputs like the gradient, which begin as zeros where there were none.
fn same(q: &Inquiry, count: usize) -> Result<Vec<OutputSpec>, Error> {
    Ok(vec![OutputSpec::new(DType::F32, q.shape(0)?).zeroed(); count])
}

//! Adagrad.

use windlass_ops::Context;
use windlass_ops::library::steps::ADAGRAD_STEP;
use windlass_tensor::Tensor;

use super::Entry;
use super::adam::DECAY;
use super::each::{Each, Rule, State, Step};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "adagrad",
    about: "descent divided by the root of the sum of squares (JMLR 12, 2121)",
    settings: &[
        DECAY,
        Setting::new("epsilon", 1e-10, "added to what is divided by"),
        Setting::new("rate_decay", 0.0, "how fast the rate falls with steps"),
        Setting::new("initial", 0.0, "what the sum of squares begins with"),
    ],
    make: |settings| {
        let rule = Adagrad {
            epsilon: settings.within("epsilon", 0.0..)?,
            rate_decay: settings.within("rate_decay", 0.0..)?,
            initial: settings.within("initial", 0.0..)?,
        };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct Adagrad {
    epsilon: f64,
    rate_decay: f64,
    initial: f64,
}

impl Rule for Adagrad {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        let shape = parameter.tensor.shape().to_vec();
        let values = vec![self.initial as f32; parameter.tensor.shape().values()];
        Ok(vec![("squares", Tensor::from_slice(&values, shape)?)])
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let rate = step.learning_rate / (1.0 + (step.number - 1) as f64 * self.rate_decay);
        let how = step.attributes().float("learning_rate", rate).float("epsilon", self.epsilon);
        Ok(cx.call_into(&ADAGRAD_STEP, &[gradient], &how, all)?)
    }
}

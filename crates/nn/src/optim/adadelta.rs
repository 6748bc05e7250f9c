//! Adadelta.

use windlass_ops::Context;
use windlass_ops::library::steps::ADADELTA_STEP;
use windlass_tensor::Tensor;

use super::Entry;
use super::adam::DECAY;
use super::each::{Each, Rule, State, Step, zeros_like};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "adadelta",
    about: "steps as large as those before (arXiv 1212.5701)",
    settings: &[
        DECAY,
        Setting::new("rho", 0.9, "how much of the mean squares stays"),
        Setting::new("epsilon", 1e-6, "added to both mean squares"),
    ],
    make: |settings| {
        let rule = Adadelta { rho: settings.within("rho", 0.0..=1.0)?, epsilon: settings.within("epsilon", 0.0..)? };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct Adadelta {
    rho: f64,
    epsilon: f64,
}

impl Rule for Adadelta {
    fn name(&self) -> &'static str {
        "adadelta"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        zeros_like(parameter, &["square", "steps"])
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let how = step.attributes().float("rho", self.rho).float("epsilon", self.epsilon);
        Ok(cx.call_into(&ADADELTA_STEP, &[gradient], &how, all)?)
    }
}

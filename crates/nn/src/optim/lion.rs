//! Lion.

use windlass_ops::Context;
use windlass_ops::library::steps::LION_STEP;
use windlass_tensor::Tensor;

use super::Entry;
use super::adam::{BETA1, DECAY};
use super::each::{Each, Rule, State, Step, zeros_like};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "lion",
    about: "steps of one size along the sign of a mean (arXiv 2302.06675)",
    settings: &[BETA1, Setting::new("beta2", 0.99, "how much of the mean stays for the next step"), DECAY],
    make: |settings| {
        let rule = Lion { beta1: settings.within("beta1", 0.0..1.0)?, beta2: settings.within("beta2", 0.0..1.0)? };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct Lion {
    beta1: f64,
    beta2: f64,
}

impl Rule for Lion {
    fn name(&self) -> &'static str {
        "lion"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        zeros_like(parameter, &["mean"])
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let how = step.attributes().float("beta1", self.beta1).float("beta2", self.beta2);
        Ok(cx.call_into(&LION_STEP, &[gradient], &how, all)?)
    }
}

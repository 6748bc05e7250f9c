//! Stochastic gradient descent.

use windlass_ops::Context;
use windlass_ops::library::steps::{MOMENTUM_STEP, SGD_STEP};
use windlass_tensor::Tensor;

use super::Entry;
use super::adam::DECAY;
use super::each::{Each, Rule, State, Step, zeros_like};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "sgd",
    about: "descent, with momentum where it is wanted",
    settings: &[
        DECAY,
        Setting::new("momentum", 0.0, "how much of the sum of earlier gradients stays"),
        Setting::new("dampening", 0.0, "how much of a gradient does not come into the sum"),
        Setting::new("nesterov", 0.0, "1: steps look ahead"),
    ],
    make: |settings| {
        let rule = Sgd {
            momentum: settings.within("momentum", 0.0..)?,
            dampening: settings.get("dampening"),
            nesterov: settings.is("nesterov"),
        };
        if rule.nesterov && (rule.momentum == 0.0 || rule.dampening != 0.0) {
            return Err(Error::Setting("nesterov needs momentum, and no dampening".into()));
        }
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct Sgd {
    momentum: f64,
    dampening: f64,
    nesterov: bool,
}

impl Rule for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        zeros_like(parameter, if self.momentum == 0.0 { &[] } else { &["momentum"] })
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let how = step.attributes();
        if self.momentum == 0.0 {
            return Ok(cx.call_into(&SGD_STEP, &[gradient], &how, all)?);
        }
        let how = how.float("momentum", self.momentum).float("dampening", self.dampening);
        let how = how.bool("nesterov", self.nesterov).bool("first", step.number == 1);
        Ok(cx.call_into(&MOMENTUM_STEP, &[gradient], &how, all)?)
    }
}

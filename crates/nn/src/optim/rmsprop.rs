//! RMSprop.

use windlass_ops::Context;
use windlass_ops::library::steps::{CENTERED_STEP, RMSPROP_STEP};
use windlass_tensor::Tensor;

use super::Entry;
use super::adam::{DECAY, EPSILON};
use super::each::{Each, Rule, State, Step, zeros_like};
use crate::{Error, Parameter, Setting};

pub(super) const ENTRY: Entry = Entry {
    name: "rmsprop",
    about: "descent divided by a running mean square",
    settings: &[
        DECAY,
        EPSILON,
        Setting::new("alpha", 0.99, "how much of the mean square stays"),
        Setting::new("momentum", 0.0, "how much of earlier steps stays"),
        Setting::new("centered", 0.0, "1: divided by the spread around the mean"),
    ],
    make: |settings| {
        let rule = RmsProp {
            alpha: settings.within("alpha", 0.0..=1.0)?,
            epsilon: settings.within("epsilon", 0.0..)?,
            momentum: settings.within("momentum", 0.0..)?,
            centered: settings.is("centered"),
        };
        Ok(Box::new(Each::new(rule, settings.get("weight_decay"))))
    },
};

struct RmsProp {
    alpha: f64,
    epsilon: f64,
    momentum: f64,
    centered: bool,
}

impl RmsProp {
    fn is_plain(&self) -> bool {
        !self.centered && self.momentum == 0.0
    }
}

impl Rule for RmsProp {
    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        zeros_like(parameter, if self.is_plain() { &["square"] } else { &["square", "mean", "momentum"] })
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        let how = step.attributes().float("alpha", self.alpha).float("epsilon", self.epsilon);
        if self.is_plain() {
            return Ok(cx.call_into(&RMSPROP_STEP, &[gradient], &how, all)?);
        }
        let how = how.float("momentum", self.momentum).bool("centered", self.centered);
        Ok(cx.call_into(&CENTERED_STEP, &[gradient], &how, all)?)
    }
}

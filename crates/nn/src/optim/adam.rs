//! Adam and AdamW.

use windlass_ops::Context;
use windlass_ops::library::steps::ADAM_STEP;
use windlass_tensor::Tensor;

use super::each::{Each, Rule, State, Step, zeros_like};
use super::{Entry, Optimizer};
use crate::{Error, Parameter, Setting, Settings};

pub(super) const BETA1: Setting = Setting::new("beta1", 0.9, "how much of the mean stays");
pub(super) const BETA2: Setting = Setting::new("beta2", 0.999, "how much of the mean square stays");
pub(super) const EPSILON: Setting = Setting::new("epsilon", 1e-8, "added to what is divided by");
pub(super) const DECAY: Setting = Setting::new("weight_decay", 0.0, "how much weights shrink");
pub(super) const SHRINK: Setting = Setting::new("weight_decay", 0.01, DECAY.about);

pub(super) const ADAMW: Entry = Entry {
    name: "adamw",
    about: "AdamW (arXiv 1711.05101), which decays weights apart from the gradient",
    settings: &[BETA1, BETA2, EPSILON, SHRINK],
    make: |settings| make(settings, true),
};

pub(super) const ADAM: Entry = Entry {
    name: "adam",
    about: "Adam (arXiv 1412.6980)",
    settings: &[BETA1, BETA2, EPSILON, DECAY],
    make: |settings| make(settings, false),
};

fn make(settings: &Settings, decoupled: bool) -> Result<Box<dyn Optimizer>, Error> {
    Ok(Box::new(Each::new(Adam::of(settings, decoupled)?, settings.get("weight_decay"))))
}

/// The numbers of Adam.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    decoupled: bool,
}

impl Adam {
    pub(super) fn of(settings: &Settings, decoupled: bool) -> Result<Self, Error> {
        Ok(Self {
            beta1: settings.within("beta1", 0.0..1.0)?,
            beta2: settings.within("beta2", 0.0..1.0)?,
            epsilon: settings.within("epsilon", 0.0..)?,
            decoupled,
        })
    }

    /// What an op of its steps is told.
    pub(super) fn attributes(&self, step: &Step) -> windlass_ops::Attributes {
        step.attributes()
            .float("beta1", self.beta1)
            .float("beta2", self.beta2)
            .float("epsilon", self.epsilon)
            .bool("decoupled", self.decoupled)
            .int("step", step.number)
    }
}

impl Rule for Adam {
    fn name(&self) -> &'static str {
        if self.decoupled { "adamw" } else { "adam" }
    }

    fn begin(&self, parameter: &Parameter) -> Result<State, Error> {
        zeros_like(parameter, &["mean", "square"])
    }

    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error> {
        Ok(cx.call_into(&ADAM_STEP, &[gradient], &self.attributes(step), all)?)
    }
}

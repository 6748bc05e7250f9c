//! Optimizers: how gradients change parameters.
//!
//! [`optimizer`] makes one by its name. An optimizer that treats every parameter by itself is a [`Rule`] in a file of its own,
//! and a line in [`OPTIMIZERS`]; steps, state and groups of parameters follow.

use std::collections::BTreeMap;

use windlass_ops::Context;
use windlass_tensor::Tensor;

use crate::settings::find;
use crate::{Error, Gradients, Parameters, Setting, Settings};

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adam8;
mod each;
mod lion;
mod muon;
mod rmsprop;
mod scaler;
mod sgd;

pub use each::{Rule, State, Step};
pub use scaler::LossScaler;

/// Changes parameters by their gradients, and remembers what it needs for that.
pub trait Optimizer: Send {
    /// As the registry has it: `adamw`.
    fn name(&self) -> &'static str;

    /// One step, at a learning rate. Parameters without a gradient stay as they are.
    fn step(
        &mut self,
        cx: &Context,
        parameters: &mut Parameters,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<(), Error>;

    /// Everything that it remembers, by name.
    fn state(&self) -> BTreeMap<String, Tensor>;

    /// Goes on from what [`Optimizer::state`] gave.
    fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<(), Error>;
}

/// An optimizer that can be asked for by name.
pub struct Entry {
    pub name: &'static str,
    /// In a few words, with the paper.
    pub about: &'static str,
    pub settings: &'static [Setting],
    make: fn(&Settings) -> Result<Box<dyn Optimizer>, Error>,
}

/// Adding an optimizer costs its file and a line here.
pub static OPTIMIZERS: &[Entry] = &[
    adam::ADAMW,
    adam::ADAM,
    adam8::ENTRY,
    sgd::ENTRY,
    rmsprop::ENTRY,
    adagrad::ENTRY,
    adadelta::ENTRY,
    lion::ENTRY,
    adafactor::ENTRY,
    muon::ENTRY,
];

/// The optimizer of this name. An unknown name or setting is an error that names the nearest known one.
pub fn optimizer(name: &str, settings: &BTreeMap<String, f64>) -> Result<Box<dyn Optimizer>, Error> {
    let entry = find("optimizer", name, OPTIMIZERS, |entry| entry.name)?;
    (entry.make)(&Settings::new(entry.name, entry.settings, settings)?)
}

/// Whether an optimizer has this name.
pub fn known(name: &str) -> bool {
    OPTIMIZERS.iter().any(|entry| entry.name == name)
}

/// Whether an optimizer knows a setting.
pub fn knows(name: &str, setting: &str) -> bool {
    let entry = OPTIMIZERS.iter().find(|entry| entry.name == name);
    entry.is_some_and(|entry| entry.settings.iter().any(|known| known.name == setting))
}

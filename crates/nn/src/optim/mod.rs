//! Optimizers: how gradients change parameters.

use std::collections::BTreeMap;

use windlass_ops::Context;
use windlass_tensor::Tensor;

use crate::{Error, Gradients, Parameters};

mod adam;

pub use adam::Adam;

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

//! Optimizers that treat every parameter by itself.

use std::collections::BTreeMap;

use windlass_ops::library::elementwise_with;
use windlass_ops::{Attributes, Context, zeros};
use windlass_tensor::{DType, Tensor, TypedTensor};

use super::Optimizer;
use crate::{Error, Gradients, Parameter, Parameters};

/// What is remembered of a parameter: names and tensors.
pub type State = Vec<(&'static str, Tensor)>;

/// What an optimizer does to one parameter.
pub trait Rule: Send {
    /// As the registry has it.
    fn name(&self) -> &'static str;

    /// What is remembered of a parameter before its first step.
    fn begin(&self, parameter: &Parameter) -> Result<State, Error>;

    /// One step: `all` are the parameter and its state, in the order of [`Rule::begin`], held by nobody else.
    fn change(&self, cx: &Context, step: &Step, gradient: &Tensor, all: &mut [Tensor]) -> Result<(), Error>;
}

/// One step of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// From 1 on.
    pub number: usize,
    /// With the parameter's factor.
    pub learning_rate: f64,
    /// The parameter's own, or that of all.
    pub weight_decay: f64,
}

impl Step {
    /// What all ops of steps are told.
    pub fn attributes(&self) -> Attributes {
        Attributes::new().float("learning_rate", self.learning_rate).float("weight_decay", self.weight_decay)
    }
}

/// Zeros of the shape of a parameter, under these names.
pub(super) fn zeros_like(parameter: &Parameter, names: &[&'static str]) -> Result<State, Error> {
    names.iter().map(|name| Ok((*name, zeros(DType::F32, parameter.tensor.shape().to_vec())?))).collect()
}

/// `x` times a number.
pub(super) fn scaled(cx: &Context, x: &Tensor, by: f64) -> Result<Tensor, Error> {
    Ok(elementwise_with(cx, "scale", &[x], &Attributes::new().float("by", by))?)
}

/// `x` plus a number times `y`.
pub(super) fn plus(cx: &Context, x: &Tensor, by: f64, y: &Tensor) -> Result<Tensor, Error> {
    Ok(elementwise_with(cx, "add_scaled", &[x, y], &Attributes::new().float("by", by))?)
}

/// `x` with a share of `y`.
pub(super) fn mixed(cx: &Context, x: &Tensor, y: &Tensor, share: f64) -> Result<Tensor, Error> {
    plus(cx, &scaled(cx, x, 1.0 - share)?, share, y)
}

/// A rule with the state of all parameters.
pub(super) struct Each<R> {
    rule: R,
    weight_decay: f64,
    steps: usize,
    state: BTreeMap<String, State>,
    /// What was restored, of parameters that had no step since.
    restored: BTreeMap<String, Tensor>,
}

impl<R: Rule> Each<R> {
    /// Before the first step.
    pub(super) fn new(rule: R, weight_decay: f64) -> Self {
        Self { rule, weight_decay, steps: 0, state: BTreeMap::new(), restored: BTreeMap::new() }
    }

    /// The state of a parameter: as it begins, or as it was restored.
    fn begin(&mut self, parameter: &Parameter) -> Result<State, Error> {
        let name = &parameter.name;
        let mut state = self.rule.begin(parameter)?;
        for (part, tensor) in &mut state {
            let Some(restored) = self.restored.remove(&format!("{name}.{part}")) else { continue };
            if restored.shape() != tensor.shape() || restored.element().dtype() != tensor.element().dtype() {
                let message = format!("its {part} was {restored:?}, {} needs {tensor:?}", self.rule.name());
                return Err(Error::Parameter { name: name.clone(), message });
            }
            *tensor = restored;
        }
        Ok(state)
    }
}

impl<R: Rule> Optimizer for Each<R> {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn step(
        &mut self,
        cx: &Context,
        parameters: &mut Parameters,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<(), Error> {
        self.steps += 1;
        for parameter in parameters.iter_mut() {
            let Some(gradient) = parameter.gradient(gradients) else { continue };
            let mut state = match self.state.remove(&parameter.name) {
                Some(state) => state,
                None => self.begin(parameter)?,
            };
            let group = &parameter.group;
            let step = Step {
                number: self.steps,
                learning_rate: learning_rate * group.rate,
                weight_decay: group.weight_decay.unwrap_or(self.weight_decay),
            };
            let result = parameter.change(&mut state, |all| self.rule.change(cx, &step, gradient, all));
            self.state.insert(parameter.name.clone(), state);
            result?;
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let parts = self.state.iter().flat_map(|(name, state)| {
            state.iter().map(move |(part, tensor)| (format!("{name}.{part}"), tensor.clone()))
        });
        let step = Tensor::from_slice(&[self.steps as i64], []).ok().map(|step| ("step".to_string(), step));
        let restored = self.restored.iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
        restored.chain(parts).chain(step).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<(), Error> {
        let missing = || Error::Parameter { name: "step".into(), message: "is not in the state".into() };
        let steps = TypedTensor::<i64>::new(state.remove("step").ok_or_else(missing)?)?.get(&[])?;
        self.steps = usize::try_from(steps).map_err(|_| missing())?;
        self.state.clear();
        self.restored = state;
        Ok(())
    }
}

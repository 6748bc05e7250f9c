//! The state of a training: everything that its next steps depend on.

use std::collections::BTreeMap;

use windlass_tensor::{Tensor, TypedTensor};

use crate::{Error, Trainer};

/// Tensors by name: `parameter.NAME`, `optimizer.NAME`, and the trainer's own numbers.
pub type State = BTreeMap<String, Tensor>;

/// Steps and examples that were taken; I64 `[2]`.
const POSITION: &str = "trainer.position";

impl Trainer {
    /// A copy of the state as it is now. Random numbers and the order of examples follow from the seed and from how many
    /// steps and examples were taken.
    pub fn state(&self) -> Result<State, Error> {
        let parameters = self.parameters.iter().map(|p| (format!("parameter.{}", p.name), p.tensor.clone()));
        let optimizer = self.optimizer.state().into_iter().map(|(name, tensor)| (format!("optimizer.{name}"), tensor));
        let mut state = State::new();
        for (name, tensor) in parameters.chain(optimizer) {
            state.insert(name, copy(&tensor)?);
        }
        let (steps, taken) = (self.steps() as i64, self.cursor().taken() as i64);
        state.insert(POSITION.into(), Tensor::from_slice(&[steps, taken], [2])?);
        Ok(state)
    }

    /// Goes on from what [`Trainer::state`] gave for a trainer that was made in the same way. What is left over is given
    /// back.
    pub fn restore(&mut self, mut state: State) -> Result<State, Error> {
        let wrong = |message: String| Error::State { message };
        let position = state.remove(POSITION).ok_or_else(|| wrong(format!("{POSITION} is missing")))?;
        let position = TypedTensor::<i64>::new(position)?.to_vec()?;
        let (steps, taken) = match position.as_slice() {
            [steps, taken] if *steps >= 0 && *taken >= 0 => (*steps as u64, *taken as u64),
            other => return Err(wrong(format!("{POSITION} is {other:?}, not two counts"))),
        };
        let names: Vec<String> = self.parameters.iter().map(|p| p.name.clone()).collect();
        let mut values = Vec::with_capacity(names.len());
        for name in &names {
            let key = format!("parameter.{name}");
            values.push(state.remove(&key).ok_or_else(|| wrong(format!("{key} is missing")))?);
        }
        let optimizer = without_prefix(&mut state, "optimizer.");
        if let Some(name) = state.keys().find(|name| name.starts_with("parameter.")) {
            return Err(wrong(format!("{name} is not a parameter of this run")));
        }
        for (name, tensor) in names.iter().zip(values) {
            self.parameters.set(name, tensor)?;
        }
        self.optimizer.restore(optimizer)?;
        self.go_on(steps, taken);
        Ok(state)
    }
}

/// Takes out what begins with `prefix`, under the names without it.
fn without_prefix(state: &mut State, prefix: &str) -> State {
    let (with, without) = std::mem::take(state).into_iter().partition(|(name, _)| name.starts_with(prefix));
    *state = without;
    let with: State = with;
    with.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_string(), tensor)).collect()
}

/// The same values in memory of their own: optimizers change theirs in place.
fn copy(tensor: &Tensor) -> Result<Tensor, Error> {
    let Some(dtype) = tensor.element().dtype() else {
        let message = format!("a state of {} cannot be kept", tensor.element().name());
        return Err(Error::State { message });
    };
    let mut copied = windlass_ops::zeros(dtype, tensor.shape().to_vec())?;
    if let Some(bytes) = copied.bytes_mut() {
        tensor.read(bytes)?;
    }
    Ok(copied)
}

//! Adam and AdamW.

use std::collections::BTreeMap;

use windlass_ops::{Attributes, Context, library, zeros};
use windlass_tensor::{DType, Tensor, TypedTensor};

use super::Optimizer;
use crate::{Error, Gradients, Parameters};

/// Adam (arXiv 1412.6980), or AdamW (arXiv 1711.05101), which decays weights apart from the gradient.
#[derive(Debug)]
pub struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    decoupled: bool,
    step: usize,
    /// Mean and mean square of each parameter's gradients.
    moments: BTreeMap<String, [Tensor; 2]>,
}

impl Adam {
    /// AdamW with torch's defaults.
    pub fn decoupled() -> Self {
        Self { weight_decay: 0.01, decoupled: true, ..Self::joined() }
    }

    /// Adam with torch's defaults.
    pub fn joined() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
            step: 0,
            moments: BTreeMap::new(),
        }
    }
}

impl Optimizer for Adam {
    fn name(&self) -> &'static str {
        if self.decoupled { "adamw" } else { "adam" }
    }

    fn step(
        &mut self,
        cx: &Context,
        parameters: &mut Parameters,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<(), Error> {
        self.step += 1;
        let attributes = Attributes::new()
            .float("learning_rate", learning_rate)
            .float("beta1", self.beta1)
            .float("beta2", self.beta2)
            .float("epsilon", self.epsilon)
            .float("weight_decay", self.weight_decay)
            .bool("decoupled", self.decoupled)
            .int("step", self.step);
        for parameter in parameters.iter_mut() {
            let Some(gradient) = parameter.gradient(gradients) else { continue };
            if !self.moments.contains_key(&parameter.name) {
                let begin = || zeros(DType::F32, parameter.tensor.shape().to_vec());
                self.moments.insert(parameter.name.clone(), [begin()?, begin()?]);
            }
            let Some(moments) = self.moments.get_mut(&parameter.name) else { continue };
            parameter.change(moments, |all| Ok(cx.call_into(&library::ADAM_STEP, &[gradient], &attributes, all)?))?;
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let moments = self.moments.iter().flat_map(|(name, [mean, square])| {
            [(format!("{name}.mean"), mean.clone()), (format!("{name}.square"), square.clone())]
        });
        let step = Tensor::from_slice(&[self.step as i64], []).ok().map(|step| ("step".to_string(), step));
        moments.chain(step).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<(), Error> {
        let missing = |name: &str| Error::Parameter { name: name.into(), message: "is not in the state".into() };
        let step = state.remove("step").ok_or_else(|| missing("step"))?;
        self.step = TypedTensor::<i64>::new(step)?.get(&[])?.max(0) as usize;
        self.moments.clear();
        while let Some((name, mean)) = state.pop_first() {
            let Some(name) = name.strip_suffix(".mean") else { return Err(missing(&name)) };
            let square = state.remove(&format!("{name}.square")).ok_or_else(|| missing(name))?;
            self.moments.insert(name.into(), [mean, square]);
        }
        Ok(())
    }
}

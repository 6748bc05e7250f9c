//! Parameters: named tensors that are trained.

use std::collections::HashMap;

use windlass_ops::{Attributes, Context, library};
use windlass_tensor::{Tensor, TypedTensor};

use crate::var::number;
use crate::{Error, Gradients, Var};

/// One tensor that is trained.
#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub tensor: Tensor,
    pub group: Group,
    number: u64,
}

/// How a parameter is treated apart from others.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its learning rate is that of all times this.
    pub rate: f64,
    /// Its weight decay, where it is not that of all.
    pub weight_decay: Option<f64>,
    /// Whether optimizers of matrices (Muon) treat it as they treat vectors: embeddings and heads.
    pub plain: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self { rate: 1.0, weight_decay: None, plain: false }
    }
}

/// All tensors that are trained, in a fixed order.
#[derive(Debug, Default)]
pub struct Parameters {
    all: Vec<Parameter>,
    by_name: HashMap<String, usize>,
}

impl Parameter {
    /// As a leaf of a graph.
    pub fn var(&self) -> Var {
        Var::numbered(self.tensor.clone(), self.number)
    }

    /// Runs `step` on the tensor and on `state`, which change where they are: meanwhile nobody else holds them. What somebody
    /// holds already is copied before.
    pub(crate) fn change(
        &mut self,
        state: &mut [(&'static str, Tensor)],
        step: impl FnOnce(&mut [Tensor]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let nothing = Tensor::from_slice::<f32>(&[], [0])?;
        let mut all = Vec::with_capacity(1 + state.len());
        for tensor in std::iter::once(&mut self.tensor).chain(state.iter_mut().map(|(_, tensor)| tensor)) {
            if tensor.bytes_mut().is_none() {
                *tensor = copied(tensor)?;
            }
            all.push(std::mem::replace(tensor, nothing.clone()));
        }
        let result = step(&mut all);
        let back = std::iter::once(&mut self.tensor).chain(state.iter_mut().map(|(_, tensor)| tensor));
        back.zip(all).for_each(|(tensor, changed)| *tensor = changed);
        result
    }

    /// What flowed back to it.
    pub fn gradient<'g>(&self, gradients: &'g Gradients) -> Option<&'g Tensor> {
        gradients.numbered(self.number)
    }
}

impl Parameters {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, and says at which place. A name stands for one parameter.
    pub fn add(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<usize, Error> {
        let name = name.into();
        if self.by_name.contains_key(&name) {
            return Err(Error::Parameter { name, message: "is there already".into() });
        }
        self.by_name.insert(name.clone(), self.all.len());
        self.all.push(Parameter { name, tensor, group: Group::default(), number: number() });
        Ok(self.all.len() - 1)
    }

    /// The parameter at a place.
    pub fn get(&self, index: usize) -> Option<&Parameter> {
        self.all.get(index)
    }

    /// The parameter of a name.
    pub fn named(&self, name: &str) -> Option<&Parameter> {
        self.all.get(*self.by_name.get(name)?)
    }

    /// Puts a tensor of the same type and shape into the place of one.
    pub fn set(&mut self, name: &str, tensor: Tensor) -> Result<(), Error> {
        let wrong = |message: String| Error::Parameter { name: name.into(), message };
        let index = *self.by_name.get(name).ok_or_else(|| wrong("is not there".into()))?;
        let known = &mut self.all[index].tensor;
        if known.shape() != tensor.shape() || known.element().dtype() != tensor.element().dtype() {
            return Err(wrong(format!("is {known:?}, not {tensor:?}")));
        }
        *known = tensor;
        Ok(())
    }

    /// All, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.all.iter()
    }

    /// All, in order, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Parameter> {
        self.all.iter_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Numbers that are trained.
    pub fn values(&self) -> usize {
        self.all.iter().map(|p| p.tensor.shape().values()).sum()
    }

    /// The length of all gradients as one vector.
    pub fn gradient_norm(&self, cx: &Context, gradients: &Gradients) -> Result<f64, Error> {
        let mut squares = 0.0;
        for gradient in self.all.iter().filter_map(|p| p.gradient(gradients)) {
            let norm = cx.one(&library::NORM, &[gradient], &Attributes::NONE)?;
            let norm = library::cast(cx, &norm, windlass_tensor::DType::F32)?;
            squares += f64::from(TypedTensor::<f32>::new(norm)?.get(&[])?).powi(2);
        }
        Ok(squares.sqrt())
    }

    /// Scales all gradients so that their length as one vector is at most `most`, as torch's `clip_grad_norm_` does. Gives
    /// the length before.
    pub fn clip_gradients(&self, cx: &Context, gradients: &mut Gradients, most: f64) -> Result<f64, Error> {
        let norm = self.gradient_norm(cx, gradients)?;
        let by = most / (norm + 1e-6);
        if by < 1.0 {
            self.scale_gradients(cx, gradients, by)?;
        }
        Ok(norm)
    }

    /// Puts every value of all gradients between `-most` and `most`, as torch's `clip_grad_value_` does.
    pub fn clip_gradient_values(&self, cx: &Context, gradients: &mut Gradients, most: f64) -> Result<(), Error> {
        let range = Attributes::new().float("low", -most).float("high", most);
        for parameter in &self.all {
            let Some(gradient) = parameter.gradient(gradients) else { continue };
            let clipped = library::elementwise_with(cx, "clamp", &[gradient], &range)?;
            gradients.replace(parameter.number, clipped);
        }
        Ok(())
    }

    /// Treats the parameters whose names match a pattern (`*` stands for any text) as `group` says. Gives how many match.
    pub fn regroup(&mut self, pattern: &str, group: &Group) -> usize {
        let chosen = self.all.iter_mut().filter(|parameter| matches(pattern, &parameter.name));
        chosen.map(|parameter| parameter.group = group.clone()).count()
    }

    /// Multiplies all gradients.
    pub fn scale_gradients(&self, cx: &Context, gradients: &mut Gradients, by: f64) -> Result<(), Error> {
        for parameter in &self.all {
            let Some(gradient) = parameter.gradient(gradients) else { continue };
            let attributes = Attributes::new().float("by", by);
            let scaled = library::elementwise_with(cx, "scale", &[gradient], &attributes)?;
            gradients.replace(parameter.number, scaled);
        }
        Ok(())
    }
}

/// Whether `name` is of the form of `pattern`, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// The same values in memory of their own.
fn copied(tensor: &Tensor) -> Result<Tensor, Error> {
    let mut copy = windlass_ops::zeros_of(tensor.element(), tensor.shape().to_vec())?;
    if let Some(bytes) = copy.bytes_mut() {
        tensor.read(bytes)?;
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        let name = "model.layers.3.mlp.up_proj.weight";
        for pattern in ["*", name, "*.weight", "model.layers.3.*", "model.*.mlp.*.weight", "*up*proj*"] {
            assert!(matches(pattern, name), "{pattern}");
        }
        for pattern in ["", "weight", "*.bias", "model.layers.4.*", "*mlp.mlp*", "model.layers.3.mlp.up_proj.weight.*"]
        {
            assert!(!matches(pattern, name), "{pattern}");
        }
    }
}

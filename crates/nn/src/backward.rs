//! The way back: from a number to the leaves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use windlass_ops::{Attributes, Backward, Context, Gradient, library};
use windlass_tensor::{DType, Tensor};

use crate::var::{Kept, Node, Source};
use crate::{Error, Var};

/// What flowed back to leaves.
#[derive(Debug, Default)]
pub struct Gradients {
    by_leaf: HashMap<u64, Tensor>,
}

impl Gradients {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What flowed back to a leaf.
    pub fn get(&self, leaf: &Var) -> Option<&Tensor> {
        self.by_leaf.get(&leaf.leaf_number()?)
    }

    /// What flowed back to a leaf, which is asked for once.
    pub fn take(&mut self, leaf: &Var) -> Result<Tensor, Error> {
        let found = leaf.leaf_number().and_then(|number| self.by_leaf.remove(&number));
        found.ok_or_else(|| Error::NothingFlowed { name: "this value".into() })
    }

    pub(crate) fn numbered(&self, number: u64) -> Option<&Tensor> {
        self.by_leaf.get(&number)
    }

    pub(crate) fn replace(&mut self, number: u64, gradient: Tensor) {
        self.by_leaf.insert(number, gradient);
    }

    /// Adds what flowed back another time, as when steps are accumulated.
    pub fn add(&mut self, cx: &Context, other: Gradients) -> Result<(), Error> {
        for (leaf, gradient) in other.by_leaf {
            let sum = joined(cx, self.by_leaf.remove(&leaf), gradient)?;
            self.by_leaf.insert(leaf, sum);
        }
        Ok(())
    }

    /// How many leaves something flowed back to.
    pub fn len(&self) -> usize {
        self.by_leaf.len()
    }

    /// Whether nothing flowed back.
    pub fn is_empty(&self) -> bool {
        self.by_leaf.is_empty()
    }
}

impl Var {
    /// The gradients of this number with respect to all leaves it was computed from. What they need is forgotten on the
    /// way; the values themselves stay.
    pub fn backward(&self, cx: &Context) -> Result<Gradients, Error> {
        if self.tensor().shape().values() != 1 {
            return Err(Error::NotOneNumber { shape: self.shape().to_vec() });
        }
        let dtype = self.tensor().element().dtype().unwrap_or(DType::F32);
        let ints: Vec<i64> = self.shape().iter().map(|dim| *dim as i64).collect();
        let one = Attributes::new().ints("shape", &ints).float("value", 1.0).text("dtype", dtype.name());
        let one = cx.one(&library::FULL, &[], &one)?;
        let mut gradients = Gradients::new();
        backward(cx, vec![(self.clone(), one)], &mut gradients)?;
        Ok(gradients)
    }

    /// As [`Var::backward`], for several values and what flows back into each.
    pub fn backward_from(cx: &Context, from: Vec<(Var, Tensor)>) -> Result<Gradients, Error> {
        let mut gradients = Gradients::new();
        backward(cx, from, &mut gradients)?;
        Ok(gradients)
    }
}

/// A call on the way, with what flowed back into its outputs so far.
struct Waiting {
    node: Arc<Node>,
    gradients: Vec<Option<Tensor>>,
}

pub(crate) fn backward(cx: &Context, from: Vec<(Var, Tensor)>, leaves: &mut Gradients) -> Result<(), Error> {
    // By number: a call comes after all calls that use its outputs.
    let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
    for (var, gradient) in from {
        if gradient.shape() != var.tensor().shape() {
            let message = format!("{:?} cannot flow back into {:?}", gradient.shape(), var.shape());
            return Err(Error::Function { function: "backward", message });
        }
        arrive(cx, var.source(), gradient, &mut waiting, leaves)?;
    }
    while let Some((_, Waiting { node, gradients })) = waiting.pop_last() {
        let kept = node.kept.lock().unwrap_or_else(|e| e.into_inner()).take().ok_or(Error::Used)?;
        let wanted: Vec<bool> = node.sources.iter().map(|s| !matches!(s, Source::Constant)).collect();
        let flowed = flow(cx, kept, &gradients, &wanted, leaves)?;
        drop(gradients);
        for (source, gradient) in node.sources.iter().zip(flowed) {
            if let Some(gradient) = gradient {
                arrive(cx, source, gradient, &mut waiting, leaves)?;
            }
        }
    }
    Ok(())
}

fn flow(
    cx: &Context,
    kept: Kept,
    gradients: &[Option<Tensor>],
    wanted: &[bool],
    leaves: &mut Gradients,
) -> Result<Vec<Option<Tensor>>, Error> {
    match kept {
        Kept::Call { op, attributes, inputs, outputs } => {
            let Gradient::Rule { rule, .. } = op.gradient else { return Ok(vec![None; inputs.len()]) };
            let inputs = inputs.into_iter().map(|held| held.saved(cx)).collect::<Result<Vec<_>, Error>>()?;
            let backward =
                Backward { cx, op, inputs: &inputs, outputs: &outputs, attributes: &attributes, gradients, wanted };
            Ok(rule(&backward)?)
        }
        Kept::Function(function) => {
            let name = function.name();
            let flowed = function.backward(cx, gradients, wanted, leaves)?;
            if flowed.len() != wanted.len() {
                let message = format!("gave {} gradients for {} inputs", flowed.len(), wanted.len());
                return Err(Error::Function { function: name, message });
            }
            Ok(flowed)
        }
    }
}

fn arrive(
    cx: &Context,
    source: &Source,
    gradient: Tensor,
    waiting: &mut BTreeMap<u64, Waiting>,
    leaves: &mut Gradients,
) -> Result<(), Error> {
    match source {
        Source::Constant => {}
        Source::Leaf(number) => {
            let sum = joined(cx, leaves.by_leaf.remove(number), gradient)?;
            leaves.by_leaf.insert(*number, sum);
        }
        Source::Output(node, index) => {
            let new = || Waiting { node: node.clone(), gradients: vec![None; node.outputs] };
            let slot = &mut waiting.entry(node.number).or_insert_with(new).gradients[*index];
            *slot = Some(joined(cx, slot.take(), gradient)?);
        }
    }
    Ok(())
}

fn joined(cx: &Context, known: Option<Tensor>, more: Tensor) -> Result<Tensor, Error> {
    match known {
        None => Ok(more),
        Some(known) => Ok(library::elementwise(cx, "add", &[&known, &more])?),
    }
}

//! Gradients: how what flows back into the outputs of an op flows on to its inputs.

use windlass_tensor::{DType, Tensor};

use crate::op::Inquiry;
use crate::{Attributes, Context, Error, Op, library};

/// The gradient of an op, made of calls of ops.
#[derive(Clone, Copy)]
pub enum Gradient {
    /// Outputs are places, truths, steps or random: nothing flows back.
    Stops,
    /// There is none, for this reason: asking for it is an error.
    Refused(&'static str),
    /// `reads` says what of a call the rule needs for the gradient of one input; the rest may be forgotten meanwhile.
    /// `rule` gives a gradient, of its input's shape, for each input that is wanted; `None` means zeros.
    Rule { reads: fn(&Op, input: usize) -> Reads, rule: fn(&Backward) -> Result<Vec<Option<Tensor>>, Error> },
}

impl Gradient {
    /// A rule that reads the same for every input.
    pub const fn rule(
        reads: fn(&Op, usize) -> Reads,
        rule: fn(&Backward) -> Result<Vec<Option<Tensor>>, Error>,
    ) -> Self {
        Self::Rule { reads, rule }
    }
}

/// What of a call is read again: bit `i` stands for input or output `i`. Inputs from 63 on share the last bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    inputs: u64,
    outputs: u64,
}

impl Reads {
    /// Shapes and types only.
    pub const NOTHING: Self = Self { inputs: 0, outputs: 0 };

    /// Input `index`.
    pub const fn input(index: usize) -> Self {
        Self { inputs: bit(index), outputs: 0 }
    }

    /// All inputs from `index` on.
    pub const fn inputs_from(index: usize) -> Self {
        Self { inputs: !(bit(index) - 1), outputs: 0 }
    }

    /// Output `index`.
    pub const fn output(index: usize) -> Self {
        Self { inputs: 0, outputs: bit(index) }
    }

    /// All outputs.
    pub const fn outputs() -> Self {
        Self { inputs: 0, outputs: u64::MAX }
    }

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self { inputs: self.inputs | other.inputs, outputs: self.outputs | other.outputs }
    }

    /// Whether input `index` is read.
    pub const fn reads_input(self, index: usize) -> bool {
        self.inputs & bit(index) != 0
    }

    /// Whether output `index` is read.
    pub const fn reads_output(self, index: usize) -> bool {
        self.outputs & bit(index) != 0
    }
}

const fn bit(index: usize) -> u64 {
    1 << if index > 63 { 63 } else { index }
}

/// What is left of a tensor of a call when gradients are computed.
#[derive(Clone, Debug)]
pub enum Saved {
    /// All of it.
    Kept(Tensor),
    /// Its type, `F32` for packed ones, and shape.
    Described(DType, Vec<usize>),
}

impl Saved {
    /// Keeps a tensor, or describes it only.
    pub fn new(tensor: &Tensor, keep: bool) -> Self {
        if keep { Self::Kept(tensor.clone()) } else { Self::Described(dtype(tensor), tensor.shape().to_vec()) }
    }

    /// Row-major, outermost first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Kept(tensor) => tensor.shape(),
            Self::Described(_, shape) => shape,
        }
    }

    /// The type of its values.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Kept(tensor) => dtype(tensor),
            Self::Described(dtype, _) => *dtype,
        }
    }

    /// The tensor, where it was kept.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Kept(tensor) => Some(tensor),
            Self::Described(..) => None,
        }
    }
}

fn dtype(tensor: &Tensor) -> DType {
    tensor.element().dtype().unwrap_or(DType::F32)
}

/// A call whose gradients are wanted.
pub struct Backward<'a> {
    pub cx: &'a Context<'a, 'a>,
    pub op: &'static Op,
    pub inputs: &'a [Saved],
    pub outputs: &'a [Saved],
    pub attributes: &'a Attributes,
    /// Of each output; `None` where nothing flows back.
    pub gradients: &'a [Option<Tensor>],
    /// Whether the gradient of each input is wanted.
    pub wanted: &'a [bool],
}

impl<'a> Backward<'a> {
    /// The attributes of the call.
    pub fn inquiry(&self) -> Inquiry<'a> {
        Inquiry { op: self.op, inputs: &[], attributes: self.attributes }
    }

    /// Refuses.
    pub fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::Argument { op: self.op.name, message: message.into() })
    }

    /// Whether the gradient of input `index` is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// Input `index`, which the op's `reads` asks for.
    pub fn input(&self, index: usize) -> Result<&'a Tensor, Error> {
        let saved = self.inputs.get(index).and_then(Saved::tensor);
        saved.map_or_else(|| self.fail(format!("input {index} was not kept for the gradient")), Ok)
    }

    /// Output `index`, which the op's `reads` asks for.
    pub fn output(&self, index: usize) -> Result<&'a Tensor, Error> {
        let saved = self.outputs.get(index).and_then(Saved::tensor);
        saved.map_or_else(|| self.fail(format!("output {index} was not kept for the gradient")), Ok)
    }

    /// Shape of input `index`.
    pub fn shape(&self, index: usize) -> &'a [usize] {
        self.inputs.get(index).map_or(&[], Saved::shape)
    }

    /// The gradient of the only output, or of the first.
    pub fn gradient(&self) -> Result<&'a Tensor, Error> {
        match self.gradients.first() {
            Some(Some(gradient)) => Ok(gradient),
            _ => self.fail("nothing flows back into its first output"),
        }
    }

    /// The gradient of the only input that can have one, as rules give it.
    pub fn only(&self, gradient: Tensor) -> Result<Vec<Option<Tensor>>, Error> {
        let mut all = vec![None; self.inputs.len()];
        if let Some(first) = all.first_mut() {
            *first = Some(gradient);
        }
        Ok(all)
    }

    /// `gradient`, summed where input `index` was stretched.
    pub fn unstretched(&self, gradient: Tensor, index: usize) -> Result<Tensor, Error> {
        unstretch(self.cx, gradient, self.shape(index))
    }
}

/// The sum of what is stretched, so that it has `shape` again.
pub fn unstretch(cx: &Context, stretched: Tensor, shape: &[usize]) -> Result<Tensor, Error> {
    let long = stretched.shape().dims();
    if long == shape {
        return Ok(stretched);
    }
    let more = long.len().saturating_sub(shape.len());
    let dims: Vec<i64> = (0..long.len())
        .filter(|i| *i < more || (shape.get(i - more) == Some(&1) && long.get(*i) != Some(&1)))
        .map(|i| i as i64)
        .collect();
    let summed = match dims.is_empty() {
        true => stretched,
        false => cx.one(&library::SUM, &[&stretched], &Attributes::new().ints("dim", &dims))?,
    };
    Ok(summed.reshape(shape.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_name_inputs_and_outputs() {
        let reads = Reads::input(1).and(Reads::output(0));
        assert!(reads.reads_input(1) && reads.reads_output(0));
        assert!(!reads.reads_input(0) && !reads.reads_output(1));
        let from = Reads::inputs_from(1);
        assert!(!from.reads_input(0) && from.reads_input(1) && from.reads_input(100));
        assert_eq!(Reads::NOTHING, Reads::default());
    }
}

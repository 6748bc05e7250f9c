//! Checkpoints: what is computed between them is forgotten, and computed again on the way back (arXiv 1604.06174).

use std::collections::VecDeque;

use windlass_ops::{Context, Op};
use windlass_tensor::Tensor;

use crate::backward::backward;
use crate::{Error, Function, Gradients, Tape, Var};

/// A part of a graph that can be computed twice with the same result.
pub type Segment = dyn Fn(&Tape, &[Var]) -> Result<Vec<Var>, Error> + Send + Sync;

/// Says of an op whether its outputs are kept.
pub type Policy = fn(&Op) -> bool;

/// Outputs of calls, in their order, that a checkpoint keeps, and takes on the way back instead of computing them again.
pub(crate) struct Replay {
    policy: Policy,
    kept: VecDeque<Vec<Tensor>>,
    again: bool,
}

impl Replay {
    pub(crate) fn keep(&mut self, op: &Op, outputs: &[Tensor]) {
        if !self.again && (self.policy)(op) {
            self.kept.push_back(outputs.to_vec());
        }
    }

    pub(crate) fn take(&mut self, op: &Op) -> Option<Vec<Tensor>> {
        if self.again && (self.policy)(op) { self.kept.pop_front() } else { None }
    }
}

impl Tape<'_> {
    /// Computes `segment` of `inputs` and keeps the inputs only. Leaves that the segment uses get their gradients as well.
    pub fn checkpoint(
        &self,
        inputs: &[&Var],
        segment: impl Fn(&Tape, &[Var]) -> Result<Vec<Var>, Error> + Send + Sync + 'static,
    ) -> Result<Vec<Var>, Error> {
        self.checkpoint_keeping(inputs, |_| false, segment)
    }

    /// As [`Tape::checkpoint`], but the outputs of ops that `policy` names are kept too, and not computed again: products of
    /// matrices, say, and not what is cheap.
    pub fn checkpoint_keeping(
        &self,
        inputs: &[&Var],
        policy: Policy,
        segment: impl Fn(&Tape, &[Var]) -> Result<Vec<Var>, Error> + Send + Sync + 'static,
    ) -> Result<Vec<Var>, Error> {
        let constants: Vec<Var> = inputs.iter().map(|var| var.detach()).collect();
        if !self.is_recording() {
            return segment(self, &constants);
        }
        let replay = Replay { policy, kept: VecDeque::new(), again: false };
        let (outputs, replay) = self.replaying(replay, |tape| tape.no_grad(|tape| segment(tape, &constants)));
        let outputs = outputs?.into_iter().map(Var::into_tensor).collect();
        // A constant that is wanted: leaves of the segment alone may want gradients.
        let anchor = Var::leaf(Tensor::from_slice(&[0.0f32], [])?);
        let mut all: Vec<&Var> = inputs.to_vec();
        all.push(&anchor);
        let tensors = constants.into_iter().map(Var::into_tensor).collect();
        Ok(self.custom(&all, outputs, Again { inputs: tensors, replay, segment: Box::new(segment) }))
    }
}

struct Again {
    inputs: Vec<Tensor>,
    replay: Option<Replay>,
    segment: Box<Segment>,
}

impl Function for Again {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn backward(
        self: Box<Self>,
        cx: &Context,
        gradients: &[Option<Tensor>],
        wanted: &[bool],
        leaves: &mut Gradients,
    ) -> Result<Vec<Option<Tensor>>, Error> {
        let var = |(tensor, wanted): (Tensor, &bool)| if *wanted { Var::leaf(tensor) } else { Var::constant(tensor) };
        let inputs: Vec<Var> = self.inputs.into_iter().zip(wanted).map(var).collect();
        let tape = Tape::new(cx);
        let outputs = match self.replay {
            Some(replay) => tape.replaying(Replay { again: true, ..replay }, |tape| (self.segment)(tape, &inputs)).0?,
            None => (self.segment)(&tape, &inputs)?,
        };
        let from = outputs.into_iter().zip(gradients).filter_map(|(var, g)| Some((var, g.clone()?))).collect();
        let mut found = Gradients::new();
        backward(cx, from, &mut found)?;
        let mut flowed: Vec<Option<Tensor>> = inputs.iter().map(|input| found.take(input).ok()).collect();
        flowed.push(None);
        leaves.add(cx, found)?;
        Ok(flowed)
    }
}

//! Calls of ops that are remembered.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

use windlass_ops::{Attributes, Context, Gradient, Op, Reads, Saved, library};
use windlass_tensor::Tensor;

use crate::checkpoint::Replay;
use crate::forget::{Again, Held};
use crate::var::{Kept, Node, number};
use crate::{Error, Function, Gradients, Var};

/// Calls ops, and remembers what the gradients of their outputs need.
pub struct Tape<'a> {
    cx: &'a Context<'a, 'a>,
    recording: Cell<bool>,
    /// Whether what calls of an op give is computed again.
    forgets: fn(&'static Op) -> bool,
    /// What a checkpoint keeps of the calls, or kept before.
    replay: RefCell<Option<Replay>>,
}

impl<'a> Tape<'a> {
    /// Calls in the context `cx`.
    pub fn new(cx: &'a Context<'a, 'a>) -> Self {
        Self { cx, recording: Cell::new(true), forgets: |_| false, replay: RefCell::default() }
    }

    /// Does not keep what calls of such ops give where their inputs are kept anyway: it is computed again on the way back,
    /// with the same result.
    pub fn forgetting(self, forgets: fn(&'static Op) -> bool) -> Self {
        Self { forgets, ..self }
    }

    /// The context of the calls.
    pub fn context(&self) -> &'a Context<'a, 'a> {
        self.cx
    }

    /// Runs `work` without remembering anything: its results are constants.
    pub fn no_grad<R>(&self, work: impl FnOnce(&Self) -> R) -> R {
        let before = self.recording.replace(false);
        let result = work(self);
        self.recording.set(before);
        result
    }

    /// Whether calls are remembered.
    pub fn is_recording(&self) -> bool {
        self.recording.get()
    }

    /// Calls an op.
    pub fn call(&self, op: &'static Op, inputs: &[&Var], attributes: &Attributes) -> Result<Vec<Var>, Error> {
        let tensors: Vec<&Tensor> = inputs.iter().map(|var| var.tensor()).collect();
        let outputs = self.computed(op, &tensors, attributes)?;
        if !self.remembers(inputs) {
            return Ok(outputs.into_iter().map(Var::constant).collect());
        }
        let reads = match op.gradient {
            Gradient::Stops => return Ok(outputs.into_iter().map(Var::constant).collect()),
            Gradient::Refused(reason) => return Err(Error::NoGradient { op: op.name, reason }),
            Gradient::Rule { reads, .. } => reads,
        };
        let wanted = inputs.iter().enumerate().filter(|(_, var)| var.wants_gradient());
        let read = wanted.fold(Reads::NOTHING, |all, (i, _)| all.and(reads(op, i)));
        let kept = Kept::Call {
            op,
            attributes: attributes.clone(),
            inputs: inputs.iter().enumerate().map(|(i, var)| held(var, read.reads_input(i))).collect(),
            outputs: outputs.iter().enumerate().map(|(i, t)| Saved::new(t, read.reads_output(i))).collect(),
        };
        let forgets = self.forgets(op, inputs, read) && outputs.len() == 1;
        let outputs = self.remember(kept, inputs, outputs);
        if !forgets {
            return Ok(outputs);
        }
        let again = Again::by_call(op, attributes, inputs);
        Ok(outputs.into_iter().map(|var| var.forgotten(again.clone())).collect())
    }

    /// Whether what a call gives need not be kept: its inputs are there, or can be computed again as well.
    fn forgets(&self, op: &'static Op, inputs: &[&Var], read: Reads) -> bool {
        let there = |(i, var): (usize, &&Var)| !var.wants_gradient() || var.again().is_some() || read.reads_input(i);
        (self.forgets)(op) && inputs.iter().enumerate().all(there)
    }

    /// Calls an op with one output, or takes the first of several.
    pub fn one(&self, op: &'static Op, inputs: &[&Var], attributes: &Attributes) -> Result<Var, Error> {
        let first = self.call(op, inputs, attributes)?.into_iter().next();
        let message = || "it gave no output".to_string();
        first.ok_or_else(|| Error::Op(windlass_ops::Error::Argument { op: op.name, message: message() }))
    }

    /// Calls an elementwise op by its name.
    pub fn elementwise(&self, name: &str, inputs: &[&Var]) -> Result<Var, Error> {
        self.one(windlass_ops::op(name)?, inputs, &Attributes::NONE)
    }

    /// The sum of all values.
    pub fn sum(&self, x: &Var) -> Result<Var, Error> {
        self.one(&library::SUM, &[x], &Attributes::NONE)
    }

    /// `x * by`.
    pub fn scale(&self, x: &Var, by: f64) -> Result<Var, Error> {
        self.one(windlass_ops::op("scale")?, &[x], &Attributes::new().float("by", by))
    }

    /// The same values in another shape.
    pub fn reshape(&self, x: &Var, shape: impl Into<Vec<usize>>) -> Result<Var, Error> {
        let before = x.shape().to_vec();
        let tensor = x.tensor().contiguous()?.reshape(shape)?;
        let shape = tensor.shape().to_vec();
        let var = self.view(x, tensor, move |gradient| Ok(gradient.contiguous()?.reshape(before)?))?;
        Ok(match x.again().cloned() {
            Some(again) => {
                var.forgotten(Again::new(move |cx| Ok(again.value(cx)?.contiguous()?.reshape(shape.clone())?)))
            }
            None => var,
        })
    }

    /// The same values with two dimensions exchanged.
    pub fn transpose(&self, x: &Var, a: usize, b: usize) -> Result<Var, Error> {
        let tensor = x.tensor().transpose(a, b)?;
        self.view(x, tensor, move |gradient| Ok(gradient.transpose(a, b)?))
    }

    /// `length` values from `start` on along a dimension.
    pub fn narrow(&self, x: &Var, axis: usize, start: usize, length: usize) -> Result<Var, Error> {
        let tensor = x.tensor().narrow(axis, start, length)?;
        let whole = x.shape().to_vec();
        let pads = move |gradient: Tensor, cx: &Context| -> Result<Tensor, Error> {
            let mut pads = vec![0; 2 * (whole.len() - axis)];
            let last = pads.len() - 2;
            (pads[last], pads[last + 1]) = (start as i64, (whole[axis] - start - length) as i64);
            Ok(cx.one(&library::PAD, &[&gradient], &Attributes::new().ints("pads", &pads))?)
        };
        Ok(self.custom(&[x], vec![tensor], Flow("narrow", pads)).remove(0))
    }

    /// Lets `hook` see, and change, what flows back through `x`.
    pub fn hook(
        &self,
        x: &Var,
        hook: impl FnOnce(Tensor) -> Result<Tensor, Error> + Send + 'static,
    ) -> Result<Var, Error> {
        self.view(x, x.tensor().clone(), hook)
    }

    /// Remembers a call with a gradient of its own, which gave `outputs` for `inputs`.
    pub fn custom(&self, inputs: &[&Var], outputs: Vec<Tensor>, function: impl Function + 'static) -> Vec<Var> {
        if !self.remembers(inputs) {
            return outputs.into_iter().map(Var::constant).collect();
        }
        self.remember(Kept::Function(Box::new(function)), inputs, outputs)
    }

    fn view(
        &self,
        x: &Var,
        tensor: Tensor,
        back: impl FnOnce(Tensor) -> Result<Tensor, Error> + Send + 'static,
    ) -> Result<Var, Error> {
        Ok(self.custom(&[x], vec![tensor], Flow("view", move |gradient, _: &Context| back(gradient))).remove(0))
    }

    /// With what a checkpoint keeps meanwhile; gives what it kept.
    pub(crate) fn replaying<R>(&self, replay: Replay, work: impl FnOnce(&Self) -> R) -> (R, Option<Replay>) {
        let before = self.replay.replace(Some(replay));
        let result = work(self);
        (result, self.replay.replace(before))
    }

    /// The outputs of a call, or what a checkpoint kept of them.
    fn computed(&self, op: &'static Op, inputs: &[&Tensor], attributes: &Attributes) -> Result<Vec<Tensor>, Error> {
        let kept = self.replay.borrow_mut().as_mut().and_then(|replay| replay.take(op));
        match kept {
            Some(outputs) => Ok(outputs),
            None => {
                let outputs = self.cx.call(op, inputs, attributes)?;
                if let Some(replay) = &mut *self.replay.borrow_mut() {
                    replay.keep(op, &outputs);
                }
                Ok(outputs)
            }
        }
    }

    fn remembers(&self, inputs: &[&Var]) -> bool {
        self.recording.get() && inputs.iter().any(|var| var.wants_gradient())
    }

    fn remember(&self, kept: Kept, inputs: &[&Var], outputs: Vec<Tensor>) -> Vec<Var> {
        let node = Arc::new(Node {
            number: number(),
            sources: inputs.iter().map(|var| var.source().clone()).collect(),
            outputs: outputs.len(),
            kept: Mutex::new(Some(kept)),
        });
        let var = |(i, tensor)| Var::output(tensor, node.clone(), i);
        outputs.into_iter().enumerate().map(var).collect()
    }
}

fn held(var: &Var, read: bool) -> Held {
    if read { Held::of(var) } else { Held::Saved(Saved::new(var.tensor(), false)) }
}

/// One value in, one out.
struct Flow<F>(&'static str, F);

impl<F: FnOnce(Tensor, &Context) -> Result<Tensor, Error> + Send> Function for Flow<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn backward(
        self: Box<Self>,
        cx: &Context,
        gradients: &[Option<Tensor>],
        _wanted: &[bool],
        _leaves: &mut Gradients,
    ) -> Result<Vec<Option<Tensor>>, Error> {
        match gradients {
            [Some(gradient)] => Ok(vec![Some((self.1)(gradient.clone(), cx)?)]),
            _ => Ok(vec![None]),
        }
    }
}

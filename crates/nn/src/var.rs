//! Values whose gradients can be wanted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use windlass_ops::{Attributes, Context, Op, Saved};
use windlass_tensor::Tensor;

use crate::forget::{Again, Held};
use crate::{Error, Gradients};

/// A tensor, and where it came from.
#[derive(Clone, Debug)]
pub struct Var {
    tensor: Tensor,
    source: Source,
    /// How it is computed again, where it need not be kept.
    again: Option<Arc<Again>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Nothing flows back to it.
    Constant,
    /// What flows back to it is wanted.
    Leaf(u64),
    /// An output of a call.
    Output(Arc<Node>, usize),
}

/// A call whose gradients may be wanted.
#[derive(Debug)]
pub(crate) struct Node {
    /// Rises with every call: a call's inputs have smaller numbers than its outputs.
    pub number: u64,
    pub sources: Vec<Source>,
    pub outputs: usize,
    /// What its gradients need; taken on the way back.
    pub kept: Mutex<Option<Kept>>,
}

/// What the gradients of a call need.
pub(crate) enum Kept {
    Call { op: &'static Op, attributes: Attributes, inputs: Vec<Held>, outputs: Vec<Saved> },
    Function(Box<dyn Function>),
}

/// A call with a gradient of its own.
pub trait Function: Send {
    /// For messages.
    fn name(&self) -> &'static str;

    /// What flows back into each output gives what flows on to each input that is wanted; `None` is zeros. Gradients of
    /// leaves that are not inputs are added to `leaves`.
    fn backward(
        self: Box<Self>,
        cx: &Context,
        gradients: &[Option<Tensor>],
        wanted: &[bool],
        leaves: &mut Gradients,
    ) -> Result<Vec<Option<Tensor>>, Error>;
}

impl Var {
    /// A value that nothing flows back to.
    pub fn constant(tensor: Tensor) -> Self {
        Self { tensor, source: Source::Constant, again: None }
    }

    /// A value of which the gradient is wanted.
    pub fn leaf(tensor: Tensor) -> Self {
        Self { tensor, source: Source::Leaf(number()), again: None }
    }

    /// A leaf whose gradient is found under this number.
    pub(crate) fn numbered(tensor: Tensor, number: u64) -> Self {
        Self { tensor, source: Source::Leaf(number), again: None }
    }

    pub(crate) fn output(tensor: Tensor, node: Arc<Node>, index: usize) -> Self {
        Self { tensor, source: Source::Output(node, index), again: None }
    }

    pub(crate) fn forgotten(self, again: Arc<Again>) -> Self {
        Self { again: Some(again), ..self }
    }

    pub(crate) fn again(&self) -> Option<&Arc<Again>> {
        self.again.as_ref()
    }

    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The value alone.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }

    /// Row-major, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// Whether something can flow back to it.
    pub fn wants_gradient(&self) -> bool {
        !matches!(self.source, Source::Constant)
    }

    /// The same value as a constant.
    pub fn detach(&self) -> Self {
        Self::constant(self.tensor.clone())
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn leaf_number(&self) -> Option<u64> {
        match self.source {
            Source::Leaf(number) => Some(number),
            _ => None,
        }
    }
}

/// The next number of a leaf or call.
pub(crate) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kept::Call { op, .. } => f.write_str(op.name),
            Kept::Function(function) => f.write_str(function.name()),
        }
    }
}

/// Long chains of calls are let go one by one, not each inside of the one before.
impl Drop for Node {
    fn drop(&mut self) {
        let mut rest = std::mem::take(&mut self.sources);
        while let Some(source) = rest.pop() {
            if let Source::Output(node, _) = source
                && let Some(mut node) = Arc::into_inner(node)
            {
                rest.append(&mut node.sources);
            }
        }
    }
}

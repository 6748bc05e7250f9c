//! Values that are forgotten and computed again on the way back, where that costs less than the memory they take.

use std::sync::{Arc, Mutex};

use windlass_ops::{Attributes, Context, Op, Saved, elementwise, library};
use windlass_tensor::Tensor;

use crate::{Error, Var};

/// Whether an op takes about as long as reading its arguments: elementwise ops, norms, rotations, dropout.
pub fn is_cheap(op: &'static Op) -> bool {
    let named = [&library::RMS_NORM, &library::LAYER_NORM, &library::ROPE, &library::DROPOUT];
    named.into_iter().any(|cheap| std::ptr::eq(cheap, op)) || elementwise::ops().iter().any(|o| std::ptr::eq(o, op))
}

/// How a value is computed again.
pub(crate) struct Again {
    make: Box<Make>,
    /// The value, from when it is first asked for until nobody asks any more.
    value: Mutex<Option<Tensor>>,
}

type Make = dyn Fn(&Context) -> Result<Tensor, Error> + Send + Sync;

impl Again {
    pub(crate) fn new(make: impl Fn(&Context) -> Result<Tensor, Error> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { make: Box::new(make), value: Mutex::new(None) })
    }

    /// By a call of `op`.
    pub(crate) fn by_call(op: &'static Op, attributes: &Attributes, inputs: &[&Var]) -> Arc<Self> {
        let inputs: Vec<Held> = inputs.iter().map(|var| Held::of(var)).collect();
        let attributes = attributes.clone();
        Self::new(move |cx| {
            let tensors = inputs.iter().map(|held| held.tensor(cx)).collect::<Result<Vec<_>, Error>>()?;
            Ok(cx.one(op, &tensors.iter().collect::<Vec<_>>(), &attributes)?)
        })
    }

    pub(crate) fn value(&self, cx: &Context) -> Result<Tensor, Error> {
        let mut value = self.value.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(value) = &*value {
            return Ok(value.clone());
        }
        Ok(value.insert((self.make)(cx)?).clone())
    }
}

/// What is left of an input of a call.
pub(crate) enum Held {
    Saved(Saved),
    Again(Arc<Again>),
}

impl Held {
    /// The value, or how it is computed again.
    pub(crate) fn of(var: &Var) -> Self {
        match var.again() {
            Some(again) => Held::Again(again.clone()),
            None => Held::Saved(Saved::new(var.tensor(), true)),
        }
    }

    /// As it was.
    pub(crate) fn saved(self, cx: &Context) -> Result<Saved, Error> {
        match self {
            Held::Saved(saved) => Ok(saved),
            Held::Again(again) => Ok(Saved::Kept(again.value(cx)?)),
        }
    }

    fn tensor(&self, cx: &Context) -> Result<Tensor, Error> {
        match self {
            Held::Saved(saved) => {
                let missing = || Error::Function { function: "forget", message: "a value was not kept".into() };
                saved.tensor().cloned().ok_or_else(missing)
            }
            Held::Again(again) => again.value(cx),
        }
    }
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("computed again")
    }
}

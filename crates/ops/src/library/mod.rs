//! The ops that are not elementwise, a file for each family, and functions to call them by.

use windlass_tensor::Tensor;

use crate::{Attributes, Context, Error, Op};

mod attention;
mod cache;
mod cast;
mod embedding;
mod linear;
mod norm;
mod rope;
mod select;
mod softmax;

pub use attention::{ATTENTION, Attention, attention};
pub use cache::{CACHE_WRITE, cache_write};
pub use cast::{CAST, cast};
pub use embedding::{EMBEDDING, embedding};
pub use linear::{LINEAR, linear, linears};
pub use norm::{LAYER_NORM, RMS_NORM, layer_norm, rms_norm};
pub use rope::{ROPE, Rope, rope};
pub use select::{ARGMAX, argmax};
pub use softmax::{LOG_SOFTMAX, SOFTMAX, log_softmax, softmax};

/// Adding an op costs its definition and a line here.
pub static OPS: &[&Op] = &[
    &CAST,
    &EMBEDDING,
    &LINEAR,
    &RMS_NORM,
    &LAYER_NORM,
    &ROPE,
    &ATTENTION,
    &CACHE_WRITE,
    &SOFTMAX,
    &LOG_SOFTMAX,
    &ARGMAX,
];

/// Calls an elementwise op by its name, with default parameters.
pub fn elementwise(cx: &Context, name: &str, inputs: &[&Tensor]) -> Result<Tensor, Error> {
    elementwise_with(cx, name, inputs, &Attributes::NONE)
}

/// Calls an elementwise op by its name.
pub fn elementwise_with(
    cx: &Context,
    name: &str,
    inputs: &[&Tensor],
    attributes: &Attributes,
) -> Result<Tensor, Error> {
    cx.one(crate::op(name)?, inputs, attributes)
}

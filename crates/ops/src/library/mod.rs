//! The ops that are not elementwise, a file for each family, and functions to call them by.

use windlass_tensor::Tensor;

use crate::survey::{Fill, Profile, Sample};
use crate::{Attributes, Context, Error, Op};

mod attention;
mod axis;
mod bag;
mod bits;
mod cache;
mod cast;
mod channels;
mod conv;
mod create;
mod embedding;
mod index;
mod linear;
mod lora;
mod loss;
mod loss_backward;
mod matmul;
mod movement;
mod norm;
mod norm_backward;
mod pick;
mod pool;
mod quantize;
mod reduce;
mod reduce_backward;
mod resample;
mod rope;
mod scan;
mod select;
mod sequences;
mod softmax;
mod sort;
pub mod steps;
mod window;

pub use attention::{ATTENTION, Attention, attention};
pub use axis::{Axis, dims};
pub use bag::{EMBEDDING_BAG, bags, embedding_bag};
pub use bits::{BITWISE_AND, BITWISE_NOT, BITWISE_OR, BITWISE_XOR};
pub use cache::{CACHE_WRITE, Row, cache_write};
pub use cast::{CAST, cast};
pub use channels::{BATCH_NORM, BATCH_NORM_TRAINING, GROUP_NORM, INSTANCE_NORM, channels};
pub use conv::{CONV_TRANSPOSE1D, CONV_TRANSPOSE2D, CONV_WEIGHT_GRADIENT, CONV1D, CONV2D, Geometry};
pub use create::{ARANGE, BERNOULLI, DROPOUT, EYE, FULL, LINSPACE, NORMAL, ONE_HOT, RANDINT, RANDPERM, UNIFORM};
pub use embedding::{EMBEDDING, embedding};
pub use index::{GATHER, INDEX_ADD, INDEX_SELECT, MASKED_FILL, SCATTER, SCATTER_ADD, gather, index_select};
pub use linear::{LINEAR, LINEAR_TRANSPOSED, linear, linear_transposed, linears};
pub use lora::LORA_LINEAR;
pub use loss::{
    BCE_LOSS, BCE_WITH_LOGITS_LOSS, CROSS_ENTROPY, HUBER_LOSS, KL_DIV, L1_LOSS, MSE_LOSS, NLL_LOSS, SMOOTH_L1_LOSS,
    cross_entropy,
};
pub use loss_backward::{CROSS_ENTROPY_BACKWARD, CROSS_ENTROPY_STEP, NLL_LOSS_BACKWARD};
pub use matmul::{ADDMM, BMM, MATMUL, matmul};
pub use movement::{CAT, FLIP, PAD, REPEAT, ROLL, SPLIT, STACK, TRIL, TRIU, cat, stack};
pub use norm::{LAYER_NORM, RMS_NORM, layer_norm, rms_norm};
pub use norm_backward::RMS_NORM_BACKWARD;
pub use pick::{INDEX, ISIN, MULTINOMIAL};
pub use pool::{MAX_POOL1D, MAX_POOL2D, windows};
pub use quantize::{QUANTIZE, packing as packing_of, quantize, source as encoded_from};
pub use reduce::{ALL, ANY, ARGMIN, LOGSUMEXP, MAX, MEAN, MIN, NORM, PROD, STD, SUM, VAR, reduction};
pub use resample::{
    ADAPTIVE_AVG_POOL1D, ADAPTIVE_AVG_POOL2D, AVG_POOL1D, AVG_POOL2D, INTERPOLATE, Taps, interpolate, taps,
};
pub use rope::{ROPE, Rope, rope};
pub use scan::{CUMPROD, CUMPROD_BACKWARD, CUMSUM};
pub use select::{ARGMAX, argmax};
pub use sequences::{Heads, SEQUENCE_ATTENTION, SEQUENCE_ATTENTION_BACKWARD, sequence_attention, sequences};
pub use softmax::{LOG_SOFTMAX, SOFTMAX, log_softmax, softmax};
pub use sort::{ARGSORT, SORT, TOPK, topk};
pub use window::Window;

/// Adding an op costs its definition and a line here.
pub static OPS: &[&Op] = &[
    &CAST,
    &QUANTIZE,
    &EMBEDDING,
    &LINEAR,
    &LINEAR_TRANSPOSED,
    &LORA_LINEAR,
    &RMS_NORM,
    &RMS_NORM_BACKWARD,
    &LAYER_NORM,
    &ROPE,
    &ATTENTION,
    &SEQUENCE_ATTENTION,
    &SEQUENCE_ATTENTION_BACKWARD,
    &CACHE_WRITE,
    &SOFTMAX,
    &LOG_SOFTMAX,
    &ARGMAX,
    &SUM,
    &MEAN,
    &PROD,
    &VAR,
    &STD,
    &MAX,
    &MIN,
    &ANY,
    &ALL,
    &NORM,
    &LOGSUMEXP,
    &ARGMIN,
    &CUMSUM,
    &CUMPROD,
    &CUMPROD_BACKWARD,
    &MATMUL,
    &BMM,
    &ADDMM,
    &CAT,
    &STACK,
    &SPLIT,
    &PAD,
    &FLIP,
    &ROLL,
    &REPEAT,
    &TRIL,
    &TRIU,
    &GATHER,
    &INDEX_SELECT,
    &SCATTER,
    &SCATTER_ADD,
    &INDEX_ADD,
    &MASKED_FILL,
    &MSE_LOSS,
    &L1_LOSS,
    &SMOOTH_L1_LOSS,
    &HUBER_LOSS,
    &BCE_LOSS,
    &BCE_WITH_LOGITS_LOSS,
    &KL_DIV,
    &CROSS_ENTROPY,
    &CROSS_ENTROPY_BACKWARD,
    &CROSS_ENTROPY_STEP,
    &NLL_LOSS,
    &NLL_LOSS_BACKWARD,
    &SORT,
    &ARGSORT,
    &TOPK,
    &steps::ADAM_STEP,
    &steps::ADAM8_STEP,
    &steps::SGD_STEP,
    &steps::MOMENTUM_STEP,
    &steps::RMSPROP_STEP,
    &steps::CENTERED_STEP,
    &steps::ADAGRAD_STEP,
    &steps::ADADELTA_STEP,
    &steps::LION_STEP,
    &FULL,
    &ARANGE,
    &LINSPACE,
    &EYE,
    &ONE_HOT,
    &UNIFORM,
    &NORMAL,
    &BERNOULLI,
    &RANDINT,
    &RANDPERM,
    &DROPOUT,
    &MULTINOMIAL,
    &CONV1D,
    &CONV2D,
    &CONV_TRANSPOSE1D,
    &CONV_TRANSPOSE2D,
    &CONV_WEIGHT_GRADIENT,
    &MAX_POOL1D,
    &MAX_POOL2D,
    &AVG_POOL1D,
    &AVG_POOL2D,
    &ADAPTIVE_AVG_POOL1D,
    &ADAPTIVE_AVG_POOL2D,
    &INTERPOLATE,
    &GROUP_NORM,
    &INSTANCE_NORM,
    &BATCH_NORM,
    &BATCH_NORM_TRAINING,
    &EMBEDDING_BAG,
    &INDEX,
    &ISIN,
    &BITWISE_AND,
    &BITWISE_OR,
    &BITWISE_XOR,
    &BITWISE_NOT,
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

/// `x * by`.
pub(crate) fn scale(cx: &Context, x: Tensor, by: f64) -> Result<Tensor, Error> {
    if by == 1.0 { Ok(x) } else { elementwise_with(cx, "scale", &[&x], &Attributes::new().float("by", by)) }
}

/// Rows around the width of vectors, views of rows, and large values.
fn row_profiles() -> Vec<Profile> {
    vec![
        Profile::new("one").normal(&[1, 1]),
        Profile::new("odd").normal(&[7, 17]),
        Profile::new("views").with(Sample::normal(&[5, 33]).strided()),
        Profile::new("extremes").with(Sample::normal(&[4, 26]).fill(Fill::Extremes)),
        Profile::new("wide").normal(&[3, 1000]),
    ]
}

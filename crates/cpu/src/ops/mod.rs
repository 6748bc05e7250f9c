//! The provider `simd`: kernels of this crate, registered into the ops.

use windlass_ops::{Kernel, Provider, elementwise as table};

mod attention;
mod cache;
mod channels;
mod classes;
mod elementwise;
mod embedding;
mod gated;
mod images;
mod length;
mod linear;
mod linear_transposed;
mod lora;
mod matmul;
mod norm;
mod norm_backward;
mod order;
mod places;
mod quantize;
mod reduce;
mod rope;
mod sequences;
mod softmax;
mod steps;

/// Registers the provider. Calling it again changes nothing.
pub fn register() {
    let mut kernels = vec![
        linear::KERNEL,
        norm::RMS_NORM,
        norm::LAYER_NORM,
        rope::KERNEL,
        softmax::SOFTMAX,
        attention::KERNEL,
        cache::KERNEL,
        embedding::KERNEL,
        linear_transposed::KERNEL,
        lora::KERNEL,
        matmul::MATMUL,
        matmul::BMM,
        norm_backward::KERNEL,
        sequences::FORWARD,
        sequences::BACKWARD,
        length::KERNEL,
        embedding::BAG,
        quantize::QUANTIZE,
        quantize::CAST,
        reduce::SUM,
        reduce::MEAN,
        reduce::MAX,
        reduce::MIN,
        classes::LOG_SOFTMAX,
        classes::CROSS_ENTROPY,
        classes::CROSS_ENTROPY_BACKWARD,
        classes::CROSS_ENTROPY_STEP,
        places::INDEX_SELECT,
        places::GATHER,
        places::SCATTER_ADD,
        places::INDEX_ADD,
        places::CAT,
        places::SPLIT,
        order::SORT,
        order::ARGSORT,
        order::TOPK,
        order::ARGMAX,
        order::CUMSUM,
        images::CONV1D,
        images::CONV2D_KERNEL,
        images::MAX_POOL1D,
        images::MAX_POOL2D,
        channels::GROUP_NORM,
        channels::INSTANCE_NORM,
        channels::BATCH_NORM,
        channels::BATCH_NORM_TRAINING,
    ];
    kernels.extend(gated::KERNELS);
    kernels.extend(steps::KERNELS);
    kernels.extend(images::resamplers());
    let known: Vec<&str> = kernels.iter().map(|kernel| kernel.op).collect();
    let elementwise = table::all().filter(|op| elementwise::serves(op.name) && !known.contains(&op.name));
    kernels.extend(elementwise.map(|op| Kernel {
        op: op.name,
        supports: elementwise::supports,
        run: elementwise::run,
    }));
    windlass_ops::register_provider(Provider { name: "simd", device: "cpu", kernels });
}

/// An error of this crate as the ops report it.
fn failed(op: &'static str, error: impl std::fmt::Display) -> windlass_ops::Error {
    windlass_ops::Error::Argument { op, message: error.to_string() }
}

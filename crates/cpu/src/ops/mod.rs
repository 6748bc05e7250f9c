//! The provider `simd`: kernels of this crate, registered into the ops.

use windlass_ops::{Kernel, Provider, elementwise as table};

mod attention;
mod cache;
mod elementwise;
mod embedding;
mod gated;
mod length;
mod linear;
mod linear_transposed;
mod loss;
mod matmul;
mod norm;
mod norm_backward;
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
        matmul::MATMUL,
        matmul::BMM,
        norm_backward::KERNEL,
        sequences::FORWARD,
        sequences::BACKWARD,
        loss::FORWARD,
        loss::BACKWARD,
        steps::ADAM,
        length::KERNEL,
    ];
    kernels.extend(gated::KERNELS);
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

//! Kernels for processors: products of activations with weights in any scheme, where the weights lie.
//!
//! Every kernel is written once, against the vectors of [`simd`](crate::isa), and compiled for each instruction set.

mod error;
mod gemm;
pub mod isa;
pub mod linear;
mod math;
mod ops;
mod simd;
mod span;

pub use error::Error;
pub use ops::register;

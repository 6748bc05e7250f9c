//! Ops: named functions on tensors. Each has a schema, a shape rule, a tolerance and a reference kernel that is its
//! specification; providers bring faster kernels, routes choose among them, and receipts tell what ran.
//!
//! ```
//! use windlass_ops::{Context, library};
//! use windlass_tensor::{Tensor, TypedTensor};
//!
//! let x = Tensor::from_slice(&[1.0f32, -2.0, 3.0], [3])?;
//! let y = Context::here(|cx| library::elementwise(cx, "relu", &[&x]))?;
//! assert_eq!(TypedTensor::<f32>::new(y)?.to_vec()?, [1.0, 0.0, 3.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod args;
mod attributes;
mod context;
pub mod elementwise;
mod error;
mod gradient;
pub mod library;
mod op;
mod provider;
mod receipt;
mod registry;
pub mod route;
pub mod survey;

pub use args::Args;
pub use attributes::{Attribute, Attributes, Value};
pub use context::{Call, Context, pool, zeros, zeros_of};
pub use error::Error;
pub use gradient::{Backward, Gradient, Reads, Saved};
pub use op::{Input, Inquiry, Op, OutputSpec, Tolerance};
pub use provider::{Kernel, Provider, Reference, provider, provider_name, providers, register_provider};
pub use receipt::{Receipt, Recorder};
pub use registry::{all_ops, op, ops};

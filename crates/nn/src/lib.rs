//! Reverse-mode differentiation over ops, parameters as named tensors, optimizers and schedules.
//!
//! A [`Tape`] calls ops on [`Var`]s and remembers what their gradients need, and only that. [`Var::backward`] gives the
//! gradients of the leaves and forgets the rest on its way.
//!
//! ```
//! use windlass_nn::{Tape, Var};
//! use windlass_ops::Context;
//! use windlass_tensor::{Tensor, TypedTensor};
//!
//! let x = Var::leaf(Tensor::from_slice(&[1.0f32, -2.0, 3.0], [3])?);
//! let slope = Context::here(|cx| {
//!     let tape = Tape::new(cx);
//!     let y = tape.elementwise("mul", &[&x, &x])?;
//!     let loss = tape.sum(&y)?;
//!     loss.backward(cx)?.take(&x)
//! })?;
//! assert_eq!(TypedTensor::<f32>::new(slope)?.to_vec()?, [2.0, -4.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backward;
mod checkpoint;
mod error;
mod forget;
pub mod module;
pub mod optim;
mod parameters;
pub mod schedule;
mod settings;
mod tape;
mod var;

pub use backward::Gradients;
pub use checkpoint::Policy;
pub use error::Error;
pub use forget::is_cheap;
pub use parameters::{Group, Parameter, Parameters, matches};
pub use settings::{Setting, Settings};
pub use tape::Tape;
pub use var::{Function, Var};

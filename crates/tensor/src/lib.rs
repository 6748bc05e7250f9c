//! Element types, shapes, storage, metadata and limits: what every other floor stands on.
//!
//! ```
//! use windlass_tensor::{Tensor, TypedTensor};
//!
//! let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?;
//! let column = TypedTensor::<f32>::new(tensor.select(1, 2)?)?;
//! assert_eq!(column.to_vec()?, [3.0, 6.0]);
//! # Ok::<(), windlass_tensor::Error>(())
//! ```

// Tensor data are little-endian in every container and are used where they lie.
#[cfg(target_endian = "big")]
compile_error!("windlass needs a little-endian machine");

mod bytes;
mod dtype;
mod element;
mod error;
mod layout;
mod limits;
mod provenance;
mod shape;
pub mod storage;
mod strings;
mod tensor;
mod typed;
mod value;

pub use bytes::Bytes;
pub use dtype::{CustomDType, DType};
pub use element::{Element, PackedLayout};
pub use error::Error;
pub use layout::{Layout, Runs};
pub use limits::Limits;
pub use provenance::{Origin, Provenance, SchemeError};
pub use shape::Shape;
pub use storage::{Buffer, Storage};
pub use strings::Strings;
pub use tensor::Tensor;
pub use typed::{Bool, C64, F8E4M3, F8E5M2, F8E8M0, Scalar, TypedTensor};
pub use value::{Array, Metadata, Value};

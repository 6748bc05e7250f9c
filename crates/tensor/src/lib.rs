//! Element types, shapes, storage, metadata and limits: what every other floor stands on.

mod dtype;
mod element;
mod error;
mod limits;
mod value;

pub use dtype::{CustomDType, DType};
pub use element::{Element, PackedLayout};
pub use error::Error;
pub use limits::Limits;
pub use value::{Array, Metadata, Value};

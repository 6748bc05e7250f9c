//! Element types, shapes, storage, metadata and limits: what every other floor stands on.

mod dtype;
mod element;
mod error;
mod layout;
mod limits;
mod shape;
pub mod storage;
mod value;

pub use dtype::{CustomDType, DType};
pub use element::{Element, PackedLayout};
pub use error::Error;
pub use layout::{Layout, Runs};
pub use limits::Limits;
pub use shape::Shape;
pub use storage::{Buffer, Storage};
pub use value::{Array, Metadata, Value};

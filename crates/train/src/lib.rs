//! Fine-tuning: rows of data become batches, a method says what of a model is trained, the trainer takes steps.

mod checkpoint;
pub mod data;
mod error;
mod guard;
mod method;
mod trainer;
mod whole;

pub use checkpoint::State;
pub use error::Error;
pub use method::{Adapter, LoraOptions, Module, Start, attach, in_plain_order};
pub use trainer::{Options, StepReport, Trainer};
pub use whole::{Expansion, expanded, weight, whole};

//! Fine-tuning: rows of data become batches, a method says what of a model is trained, the trainer takes steps.

pub mod data;
mod error;
mod method;
mod trainer;

pub use error::Error;
pub use method::{Adapter, LoraOptions, Module, Start, attach, in_plain_order};
pub use trainer::{Options, StepReport, Trainer};

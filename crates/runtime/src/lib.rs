//! Memory and scheduling: budgets and pools of buffers, and the pipeline that moves a model through them.

mod error;
pub mod memory;
pub mod pipeline;
pub mod system;

pub use error::Error;

//! Memory and scheduling: budgets and pools of buffers, the pipeline that moves a model through them, a team of threads.

mod error;
pub mod memory;
pub mod pipeline;
pub mod scheduler;
pub mod system;

pub use error::Error;

//! Memory, scheduling, random numbers and the monitor: what everything that computes stands on.

pub mod device;
mod error;
pub mod memory;
pub mod monitor;
pub mod pipeline;
pub mod random;
pub mod scheduler;
pub mod stream;
pub mod system;

pub use error::Error;

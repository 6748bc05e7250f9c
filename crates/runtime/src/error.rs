//! Errors of this floor.

/// What can go wrong with memory or a pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The budget would be exceeded.
    #[error("out of memory: {what} needs {requested} bytes, {available} of {limit} are left")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        requested: u64,
        available: u64,
        limit: u64,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

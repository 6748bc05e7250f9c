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
    /// The shared team of threads was made before its size was set.
    #[error("the shared team has {threads} threads already: set their number before anything is computed")]
    TeamExists {
        /// Threads it has.
        threads: usize,
    },
    /// A request that cannot be meant.
    #[error("{0}")]
    Argument(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

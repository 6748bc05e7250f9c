//! Errors of this floor.

use windlass_tensor::Bytes;

/// What can go wrong with memory or a pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The budget would be exceeded.
    #[error("out of memory: {owner} needs {}, {} of {} are left", Bytes(*requested), Bytes(*available), Bytes(*limit))]
    OutOfMemory {
        /// What the memory was for.
        owner: &'static str,
        requested: u64,
        available: u64,
        limit: u64,
    },
    /// The system gave no memory, though the budget allows it.
    #[error("{owner} needs {}, which the system does not give: {source}", Bytes(*requested))]
    Refused {
        /// What the memory was for.
        owner: &'static str,
        requested: u64,
        source: std::io::Error,
    },
    /// A file of ours could not be read or written.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// Work on a stream failed some time ago.
    #[error("{op} on stream {stream} failed: {message}")]
    Failed { op: String, stream: String, message: String },
    /// A tensor's memory could not be read.
    #[error(transparent)]
    Tensor(#[from] windlass_tensor::Error),
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

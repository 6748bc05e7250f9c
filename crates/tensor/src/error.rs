//! Errors of this floor.

/// What can go wrong with a tensor itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, offset or size that cannot be.
    #[error("{0}")]
    Argument(String),
    /// Two shapes that should agree do not.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// What was being done.
        what: &'static str,
        /// The shape that was needed.
        expected: Vec<usize>,
        /// The shape that was there.
        found: Vec<usize>,
    },
    /// An element type that the operation does not take.
    #[error("{what}: expected {expected}, found {found}")]
    Element {
        /// What was being done.
        what: &'static str,
        /// The element that was needed.
        expected: String,
        /// The element that was there.
        found: String,
    },
    /// A product of dimensions, or an offset, past what the machine can address.
    #[error("{what} is too large: {shape:?}")]
    Overflow {
        /// What was being computed.
        what: &'static str,
        /// The dimensions it was computed from.
        shape: Vec<usize>,
    },
    /// Memory that the system did not give.
    #[error("{requested} bytes of memory were asked for and the system has not got them")]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
    },
    /// A mapped file that could not be read any more while it was in use.
    #[error("{}: the file became shorter, or could not be read, while it was in use; get it again and start over", path.display())]
    Damaged {
        /// The file concerned.
        path: std::path::PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file concerned.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

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
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file concerned.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

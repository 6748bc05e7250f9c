//! Errors of this crate.

/// What a kernel cannot be asked to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sizes that do not fit together.
    #[error("linear: {what}: expected {expected}, found {found}")]
    Size {
        /// What has the wrong size.
        what: &'static str,
        expected: usize,
        found: usize,
    },
    /// A matrix that is empty, or whose sizes overflow.
    #[error("linear: {0}")]
    Shape(String),
    /// A type of weights that has no values to multiply with.
    #[error("linear: weights of type {0} cannot be multiplied; convert them to a float type or a scheme first")]
    Element(String),
    /// The scheme refused its planes.
    #[error(transparent)]
    Quant(#[from] windlass_quant::Error),
}

//! Errors of differentiation and training.

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Op(#[from] windlass_ops::Error),
    #[error(transparent)]
    Tensor(#[from] windlass_tensor::Error),
    /// An op of which the gradient is wanted has none.
    #[error("{op} has no gradient: {reason}")]
    NoGradient { op: &'static str, reason: &'static str },
    /// Only numbers have gradients here.
    #[error("gradients flow back from one number, not from {shape:?}; reduce it first, or say what flows back")]
    NotOneNumber { shape: Vec<usize> },
    /// What gradients need was forgotten on the way back.
    #[error("gradients of these values were computed already; what they need is kept for one time only")]
    Used,
    /// A leaf that did not take part, or of which no gradient was wanted.
    #[error("nothing flowed back to {name}")]
    NothingFlowed { name: String },
    /// A custom function gave something else than gradients of its inputs.
    #[error("{function}: {message}")]
    Function { function: &'static str, message: String },
    /// A parameter that is not there, is there twice, or has another shape.
    #[error("parameter {name:?}: {message}")]
    Parameter { name: String, message: String },
    /// A setting out of its range.
    #[error("{0}")]
    Setting(String),
}

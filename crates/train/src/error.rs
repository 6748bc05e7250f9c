//! Errors of training.

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that does not go.
    #[error("{0}")]
    Setting(String),
    /// A row of data that cannot be used.
    #[error("{file}, {place}: {message}")]
    Row { file: String, place: crate::data::Place, message: String },
    /// Data without a single target.
    #[error("{0}")]
    Data(String),
    /// A loss or gradient that is not a number.
    #[error("step {step}: {what}; the batch has the rows {rows:?} of the data, counted from 0")]
    NotANumber { step: u64, what: String, rows: Vec<usize> },
    /// A state that is not one of this training.
    #[error("the state does not belong to this training: {message}")]
    State { message: String },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error(transparent)]
    Model(#[from] windlass_models::Error),
    #[error(transparent)]
    Nn(#[from] windlass_nn::Error),
    #[error(transparent)]
    Op(#[from] windlass_ops::Error),
    #[error(transparent)]
    Tensor(#[from] windlass_tensor::Error),
    #[error(transparent)]
    Text(#[from] windlass_text::Error),
}

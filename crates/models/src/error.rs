//! Errors of models.

/// What can go wrong when a model is put together or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The weights lack a tensor, or have it in another shape.
    #[error("tensor {tensor:?}: {message}")]
    Weight { tensor: String, message: String },
    /// This architecture has no graph here.
    #[error("{architecture} models cannot be run: {message}")]
    Unsupported { architecture: &'static str, message: String },
    /// A token that the vocabulary does not have.
    #[error("token {token} at position {position} is not one of the {vocabulary} of the vocabulary")]
    Token { token: u32, position: usize, vocabulary: usize },
    /// More tokens than the cache has room for.
    #[error("{tokens} tokens do not fit a context of {context}")]
    Context { tokens: usize, context: usize },
    /// Two models that are compared do not know the same tokens.
    #[error("the vocabulary has {found} tokens, that of the model to compare with {expected}")]
    Vocabulary { found: usize, expected: usize },
    /// A layer that is read when it is needed could not be.
    #[error("layer {layer} cannot be brought in: {message}")]
    Layer { layer: usize, message: String },
    /// A pass got fewer parameters than the model has.
    #[error("parameter {index} is missing")]
    Parameter { index: usize },
    #[error(transparent)]
    Nn(#[from] windlass_nn::Error),
    #[error(transparent)]
    Catalog(#[from] windlass_catalog::Error),
    #[error(transparent)]
    Op(#[from] windlass_ops::Error),
    #[error(transparent)]
    Tensor(#[from] windlass_tensor::Error),
}

impl Error {
    /// As an error of the graph that this one happened in.
    pub(crate) fn in_graph(self) -> windlass_nn::Error {
        match self {
            Error::Nn(error) => error,
            Error::Op(error) => error.into(),
            Error::Tensor(error) => error.into(),
            other => windlass_nn::Error::Function { function: "layer", message: other.to_string() },
        }
    }
}

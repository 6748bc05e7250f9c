//! Errors of generation.

/// What can go wrong while text is generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting out of its range.
    #[error("{name} must be {expected}, not {found}")]
    Setting { name: &'static str, expected: &'static str, found: f32 },
    /// A conversation that has grown too long.
    #[error("the conversation has {tokens} tokens, the context {context}")]
    Full { tokens: usize, context: usize },
    /// There is nothing to go on from.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The logits hold something that is not a number.
    #[error("the model gave {value} for token {token}: its weights are damaged, or its numbers overflow")]
    NotFinite { value: f32, token: usize },
    #[error(transparent)]
    Model(#[from] windlass_models::Error),
    #[error(transparent)]
    Tensor(#[from] windlass_tensor::Error),
    #[error(transparent)]
    Text(#[from] windlass_text::Error),
}

//! Errors of encoders, decoders and recipes.

/// What can go wrong with a scheme.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The matrix does not suit the scheme.
    #[error("{scheme}: {message}")]
    Shape {
        /// Name of the scheme.
        scheme: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The scheme is read but not written.
    #[error("{0} can be read but not written")]
    ReadOnly(&'static str),
    /// The encoder needs importance weights.
    #[error("{0} needs an importance matrix: make one with `windlass imatrix`, or choose another scheme")]
    NeedsImportance(&'static str),
    /// No scheme, or no recipe, of this name.
    #[error("no scheme is called {name:?}{}", suggestion.as_ref().map(|s| format!("; did you mean {s:?}?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest known name.
        suggestion: Option<String>,
    },
    /// A recipe that does not make sense.
    #[error("recipe: {0}")]
    Recipe(String),
}

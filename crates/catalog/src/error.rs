//! Errors of this floor.

/// What can be wrong with a description of a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No architecture of this name, class or model type.
    #[error("architecture {name:?} is not known; known are {known}")]
    UnknownArchitecture {
        /// What was asked for.
        name: String,
        /// The names that would have done.
        known: String,
    },
    /// A key that must be there is not.
    #[error("{key} is missing; expected {expected}")]
    Missing {
        /// The key of config.json or of the GGUF metadata.
        key: String,
        /// What it should hold.
        expected: String,
    },
    /// A key holds something that cannot be.
    #[error("{key}: expected {expected}, found {found}")]
    Invalid {
        /// The key of config.json or of the GGUF metadata.
        key: String,
        /// What it should hold.
        expected: String,
        /// What it holds, shortened.
        found: String,
    },
    /// A setting that the field knows but that this version does not carry.
    #[error("{key}: {found} is not supported for {architecture}; {remedy}")]
    Unsupported {
        /// The key of config.json or of the GGUF metadata.
        key: String,
        /// What it holds, shortened.
        found: String,
        /// The architecture concerned.
        architecture: &'static str,
        /// What can be done about it.
        remedy: &'static str,
    },
}

/// Text from outside, cut to a length that fits in a message.
pub(crate) fn short(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.into();
    }
    text.chars().take(MOST).chain("...".chars()).collect()
}

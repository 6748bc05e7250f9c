//! Errors of tokenizers and chat templates.

/// What can go wrong with a tokenizer or a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A side file that is not the JSON it should be.
    #[error("{file} is not valid: {message}")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// What the parser said, with line and column.
        message: String,
    },
    /// Something is there but makes no sense.
    #[error("{place}: {message}")]
    Invalid {
        /// Key or JSON path.
        place: String,
        /// Expected and found.
        message: String,
    },
    /// A GGUF key without which there is no tokenizer.
    #[error(
        "{0} is missing: this file holds no tokenizer; give the folder of the original model with its tokenizer.json"
    )]
    Missing(String),
    /// A bound that protects this machine.
    #[error("{place}: {found} exceeds the limit of {limit}; raise the limit if you trust this file")]
    Limit {
        /// What is too large.
        place: String,
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// Known, but not done here.
    #[error("{place}: {message}")]
    Unsupported {
        /// Key or JSON path.
        place: String,
        /// What is not supported and what is.
        message: String,
    },
    /// The tokenizers library refused.
    #[error("cannot {doing}: {message}")]
    Library {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        message: String,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token} is not in the vocabulary of {size} tokens")]
    Token {
        /// The id.
        token: u32,
        /// One more than the highest id.
        size: usize,
    },
    /// The template does not parse, or failed while it ran.
    #[error("chat template: {0}")]
    Template(String),
    /// The template itself refused these messages.
    #[error("the chat template refuses these messages: {0}")]
    Refused(String),
}

impl Error {
    pub(crate) fn invalid(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Invalid { place: place.into(), message: message.into() }
    }

    pub(crate) fn unsupported(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Unsupported { place: place.into(), message: message.into() }
    }
}

/// An error when `found` exceeds `limit`.
pub(crate) fn bound(place: impl FnOnce() -> String, found: usize, limit: u64) -> Result<(), Error> {
    let found = found as u64;
    if found > limit { Err(Error::Limit { place: place(), found, limit }) } else { Ok(()) }
}

//! Errors of readers and writers.

use std::path::{Path, PathBuf};

/// What is wrong with a file, in a form that `verify` lists and an error reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Short and stable, for scripts: `truncated`, `overlap`.
    pub code: &'static str,
    /// A lower-case sentence: expected, found.
    pub message: String,
    pub tensor: Option<String>,
    /// Bytes from the beginning of the file.
    pub offset: Option<u64>,
    /// What the user can do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem that is not (yet) tied to a tensor or an offset.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), tensor: None, offset: None, help: None }
    }

    /// Names the tensor.
    pub fn tensor(mut self, name: &str) -> Self {
        self.tensor = Some(name.chars().take(256).collect());
        self
    }

    /// Names the place in the file.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Says what the user can do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {tensor:?}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(offset) = self.offset {
            write!(f, " (at offset {offset})")?;
        }
        Ok(())
    }
}

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The file breaks its format's rules, or this program's limits.
    #[error("{}: {problem}", path.display())]
    Refused { path: PathBuf, problem: Box<Problem> },
    /// No registered container recognises the file.
    #[error("{}: {message}", path.display())]
    Unknown { path: PathBuf, message: String },
    /// The container cannot hold what was asked for.
    #[error("{container} cannot hold {what}; it can hold: {}", can.join(", "))]
    CannotHold { container: &'static str, what: String, can: Vec<String> },
    /// A model that cannot be laid out.
    #[error("{0}")]
    Layout(String),
}

impl Error {
    /// The operating system's error about `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }

    /// `path` breaks a rule.
    pub fn refused(path: &Path, problem: Problem) -> Self {
        Error::Refused { path: path.into(), problem: Box::new(problem) }
    }
}

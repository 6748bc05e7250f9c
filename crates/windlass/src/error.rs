//! One error for every verb: what went wrong, where, what to do, and which exit code says so.

use std::path::Path;

use windlass_formats::Problem;

/// Exit code of a failed command, as scripts rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Memory = 4,
    Gate = 5,
}

impl Code {
    /// Name for `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Failed => "failed",
            Code::Usage => "usage",
            Code::Refused => "refused",
            Code::Memory => "out-of-memory",
            Code::Gate => "gate",
        }
    }
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
    pub path: Option<Box<Path>>,
    pub tensor: Option<String>,
    /// Bytes from the beginning of the file.
    pub offset: Option<u64>,
    /// What the user can do.
    pub help: Option<Box<str>>,
    /// Short name of what is wrong with an input, as `verify` lists it.
    pub problem: Option<&'static str>,
    /// Whether the work done so far is kept for `--resume`.
    pub resumable: bool,
}

/// Result of a verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with nothing but a message.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        let message = message.into();
        Error { code, message, path: None, tensor: None, offset: None, help: None, problem: None, resumable: false }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(Code::Usage, message)
    }

    /// The input was refused: `problem` was found in `path`.
    pub fn refused(path: &Path, problem: Problem) -> Error {
        windlass_formats::Error::refused(path, problem).into()
    }

    /// The operating system refused.
    pub fn io(path: &Path, source: std::io::Error) -> Error {
        let mut error = Error::new(Code::Failed, format!("{}: {source}", path.display()));
        error.path = Some(path.into());
        error.help = match source.kind() {
            std::io::ErrorKind::StorageFull => Some("free some space, then run again with --resume".into()),
            std::io::ErrorKind::NotFound => Some("check the path".into()),
            std::io::ErrorKind::PermissionDenied => Some("check who owns the file and its folder".into()),
            _ => None,
        };
        error
    }

    /// Adds what the user can do.
    pub fn help(mut self, help: impl Into<String>) -> Error {
        self.help = Some(help.into().into());
        self
    }

    /// Names the file.
    pub fn at(mut self, path: &Path) -> Error {
        self.path.get_or_insert_with(|| path.into());
        self
    }

    /// Names the tensor.
    pub fn tensor(mut self, name: &str) -> Error {
        self.tensor = Some(name.into());
        self
    }
}

impl From<windlass_formats::Error> for Error {
    fn from(error: windlass_formats::Error) -> Error {
        use windlass_formats::Error as E;
        let message = error.to_string();
        match error {
            E::Io { path, source } => Error::io(&path, source),
            E::Refused { path, problem } => {
                let mut error = Error::new(Code::Refused, message).at(&path);
                (error.tensor, error.offset) = (problem.tensor, problem.offset);
                error.help = problem.help.map(String::into_boxed_str);
                error.problem = Some(problem.code);
                if error.help.is_none() && matches!(problem.code, "truncated" | "shrunk") {
                    error.help = Some("download the file again, or compare its size with the original's".into());
                }
                error
            }
            E::Unknown { path, .. } => Error::new(Code::Refused, message).at(&path),
            E::CannotHold { .. } => Error::usage(message),
            _ => Error::new(Code::Failed, message),
        }
    }
}

impl From<windlass_runtime::Error> for Error {
    fn from(error: windlass_runtime::Error) -> Error {
        let message = error.to_string();
        match error {
            windlass_runtime::Error::OutOfMemory { .. } => {
                Error::new(Code::Memory, message).help("raise --memory-limit, or lower --threads")
            }
            _ => {
                let mut error = Error::new(Code::Failed, message);
                error.resumable = true;
                error
            }
        }
    }
}

impl From<windlass_tensor::Error> for Error {
    fn from(error: windlass_tensor::Error) -> Error {
        use windlass_tensor::Error as E;
        let message = error.to_string();
        match error {
            E::OutOfMemory { .. } => Error::new(Code::Memory, message),
            E::Damaged { path } => Error::new(Code::Refused, message).at(&path),
            E::Io { path, source } => Error::io(&path, source),
            _ => Error::new(Code::Failed, message),
        }
    }
}

impl From<windlass_ops::Error> for Error {
    fn from(error: windlass_ops::Error) -> Error {
        use windlass_ops::Error as E;
        match error {
            E::Tensor(error) => error.into(),
            E::Runtime(error) => error.into(),
            E::UnknownOp { .. } | E::UnknownProvider { .. } | E::Route { .. } => Error::usage(error.to_string()),
            other => Error::new(Code::Failed, other.to_string()),
        }
    }
}

impl From<windlass_models::Error> for Error {
    fn from(error: windlass_models::Error) -> Error {
        use windlass_models::Error as E;
        let message = error.to_string();
        match error {
            E::Weight { tensor, .. } => Error::new(Code::Refused, message).tensor(&tensor),
            E::Unsupported { .. } => Error::new(Code::Refused, message).help("see `windlass architectures`"),
            E::Token { .. } | E::Vocabulary { .. } => Error::usage(message),
            E::Context { .. } => Error::usage(message).help("give a larger --context"),
            E::Tensor(error) => error.into(),
            E::Op(error) => error.into(),
            _ => Error::new(Code::Failed, message),
        }
    }
}

impl From<windlass_nn::Error> for Error {
    fn from(error: windlass_nn::Error) -> Error {
        match error {
            windlass_nn::Error::Op(error) => error.into(),
            windlass_nn::Error::Tensor(error) => error.into(),
            error @ windlass_nn::Error::Setting(_) => Error::usage(error.to_string()),
            error => Error::new(Code::Failed, error.to_string()),
        }
    }
}

impl From<windlass_train::Error> for Error {
    fn from(error: windlass_train::Error) -> Error {
        use windlass_train::Error as Train;
        match error {
            Train::Model(error) => error.into(),
            Train::Nn(error) => error.into(),
            Train::Op(error) => error.into(),
            Train::Tensor(error) => error.into(),
            Train::Text(error) => error.into(),
            error @ Train::Setting(_) => Error::usage(error.to_string()),
            error @ (Train::Row { .. } | Train::Data(_)) => Error::new(Code::Refused, error.to_string()),
            error => Error::new(Code::Failed, error.to_string()),
        }
    }
}

impl From<windlass_generate::Error> for Error {
    fn from(error: windlass_generate::Error) -> Error {
        use windlass_generate::Error as E;
        match error {
            E::Model(error) => error.into(),
            E::Tensor(error) => error.into(),
            E::Text(error) => error.into(),
            E::Setting { .. } | E::EmptyPrompt => Error::usage(error.to_string()),
            E::Full { .. } => Error::usage(error.to_string()).help("give a larger --context, or begin anew"),
            other => Error::new(Code::Refused, other.to_string()),
        }
    }
}

impl From<windlass_quant::Error> for Error {
    fn from(error: windlass_quant::Error) -> Error {
        let read_only = matches!(error, windlass_quant::Error::ReadOnly(_));
        let error = Error::usage(error.to_string());
        if !read_only {
            return error;
        }
        let floats = ["f32", "f16", "bf16"].into_iter();
        let schemes = windlass_quant::schemes().into_iter().filter(|s| s.can_encode()).map(|s| s.name());
        error.help(format!("these can be written: {}", floats.chain(schemes).collect::<Vec<_>>().join(", ")))
    }
}

impl From<windlass_catalog::Error> for Error {
    fn from(error: windlass_catalog::Error) -> Error {
        Error::new(Code::Refused, error.to_string())
    }
}

impl From<windlass_text::Error> for Error {
    fn from(error: windlass_text::Error) -> Error {
        Error::new(Code::Refused, error.to_string())
    }
}

//! Where a tensor came from and what was done to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The file and the name under which a tensor was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file that held it.
    pub file: PathBuf,
    /// Its name there.
    pub tensor: String,
}

/// The error of a lossy scheme, measured when the values were coded.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemeError {
    /// The scheme, lower case.
    pub scheme: String,
    /// Root mean square of the differences over that of the values.
    pub relative: f64,
}

/// The history of a tensor: its origin, the transformations in order, and the error of its scheme. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    history: Arc<History>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct History {
    origin: Option<Origin>,
    steps: Vec<String>,
    error: Option<SchemeError>,
}

impl Provenance {
    /// Found in `file` under the name `tensor`.
    pub fn from_file(file: impl Into<PathBuf>, tensor: impl Into<String>) -> Self {
        let origin = Some(Origin { file: file.into(), tensor: tensor.into() });
        Self { history: Arc::new(History { origin, ..History::default() }) }
    }

    /// The same history with one more transformation, in words such as `rows 0..128` or `bf16 to q4_k`.
    pub fn then(mut self, step: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.history).steps.push(step.into());
        self
    }

    /// The same history with the error that coding by `scheme` made, relative to the values that were coded.
    pub fn with_error(mut self, scheme: impl Into<String>, relative: f64) -> Self {
        Arc::make_mut(&mut self.history).error = Some(SchemeError { scheme: scheme.into(), relative });
        self
    }

    /// The file and name it came from; `None` for a tensor made in memory.
    pub fn origin(&self) -> Option<&Origin> {
        self.history.origin.as_ref()
    }

    /// The transformations, first to last.
    pub fn steps(&self) -> &[String] {
        &self.history.steps
    }

    /// The scheme that last coded the values, and its error; `None` while nothing was lost, or nothing measured.
    pub fn error(&self) -> Option<&SchemeError> {
        self.history.error.as_ref()
    }
}

/// One line: `blk.0.attn_q.weight of model.gguf, q4_k to f32 (error 0.07 by q4_k)`.
impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin() {
            Some(origin) => write!(f, "{} of {}", origin.tensor, origin.file.display())?,
            None => f.write_str("made in memory")?,
        }
        self.steps().iter().try_for_each(|step| write!(f, ", {step}"))?;
        match self.error() {
            Some(error) => write!(f, " (error {:.2e} by {})", error.relative, error.scheme),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_grows_without_changing_the_one_it_came_from() {
        let found = Provenance::from_file("model.gguf", "blk.0.attn_q.weight");
        let turned = found.clone().then("bf16 to q4_k").with_error("q4_k", 0.07);
        assert!(found.steps().is_empty() && found.error().is_none());
        assert_eq!(turned.steps(), ["bf16 to q4_k"]);
        assert_eq!(turned.origin(), found.origin());
        assert_eq!(turned.to_string(), "blk.0.attn_q.weight of model.gguf, bf16 to q4_k (error 7.00e-2 by q4_k)");
        assert_eq!(Provenance::default().then("filled").to_string(), "made in memory, filled");
    }
}

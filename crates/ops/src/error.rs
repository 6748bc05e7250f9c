//! Errors of ops and their routes.

/// What can go wrong when an op is called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No op is called so.
    #[error("no op is called {name:?}{}", suggest(suggestion))]
    UnknownOp { name: String, suggestion: Option<String> },
    /// No provider is called so.
    #[error("no provider is called {name:?}{}", suggest(suggestion))]
    UnknownProvider { name: String, suggestion: Option<String> },
    /// An argument that the op does not take: how many, of which type or shape.
    #[error("{op}: {message}")]
    Argument { op: &'static str, message: String },
    /// No provider has a kernel for these arguments, and the policy forbids another way.
    #[error("{op}: no kernel on {device} for {dtype}{}", because(why))]
    NoKernel { op: &'static str, device: String, dtype: String, why: String },
    /// A line of a routing table.
    #[error("{place}: {message}")]
    Route { place: String, message: String },
    #[error(transparent)]
    Tensor(#[from] windlass_tensor::Error),
    #[error("{op}: {source}")]
    Quant { op: &'static str, source: windlass_quant::Error },
    #[error(transparent)]
    Runtime(#[from] windlass_runtime::Error),
}

fn suggest(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or(String::new(), |s| format!("; did you mean {s:?}?"))
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

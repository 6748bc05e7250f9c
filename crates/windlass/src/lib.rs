//! Windlass: opens, converts, quantizes, runs and fine-tunes large language models.
//!
//! This is the library that people depend on: the verbs, and everything below them by its own name.

pub mod bench;
pub mod chat;
pub mod convert;
pub mod devices;
pub mod diff;
pub mod embed;
mod error;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod load;
pub mod logits;
pub mod merge;
mod model;
pub mod plan;
pub mod quickstart;
pub mod registries;
pub mod rows;
pub mod train;
pub mod tune;
mod turned;
pub mod verify;

/// Registers every provider of this build. Calling it again changes nothing.
pub fn register_providers() {
    windlass_cpu::register();
}

/// Writes a path into JSON; what is not UTF-8 in it is replaced by question marks.
fn lossy<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

pub use error::{Code, Error, Result};
pub use model::{Identity, Model};
pub use {
    windlass_catalog as catalog, windlass_formats as formats, windlass_generate as sampling, windlass_models as models,
    windlass_nn as nn, windlass_ops as ops, windlass_quant as quant, windlass_runtime as runtime,
    windlass_tensor as tensor, windlass_text as text, windlass_train as training,
};

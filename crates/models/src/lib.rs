//! Graphs of language models, built from the catalog's data and run by ops.
//!
//! One graph serves every decoder of the catalog: which pieces a model has (biases, norms of heads, norms after blocks,
//! experts) says what it computes.

mod cache;
mod decoder;
mod encoder;
mod error;
mod evaluation;
mod experts;
mod lora;
mod loss;
mod sites;
mod trace;
mod training;
mod weights;

pub use cache::Cache;
pub use decoder::{Decoder, Wanted};
pub use encoder::{Encoder, Pooling};
pub use error::Error;
pub use evaluation::{Evaluation, Scores};
pub use lora::{Lora, Loras, Randomness, row_squares};
pub use sites::{Site, sites};
pub use training::{Batch, Pass, Trainable};
pub use weights::{Layers, Weight, Weights};

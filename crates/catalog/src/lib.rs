//! Model architectures as data: hyper-parameters, the inventory of tensors, and their names and layouts in the conventions of
//! transformers, GGUF and MLX.
//!
//! A reader of a GGUF file goes: [`from_gguf`] on the metadata, [`Architecture::absorb`] with the generated tensors that are there,
//! [`Architecture::settle`] with the names, [`Architecture::pieces`], then [`Piece::find`] for each piece.

mod architecture;
mod architectures;
mod error;
mod gguf;
mod hf;
mod hyper;
mod piece;
mod registry;
mod rope;
mod settings;
mod spec;

pub use architecture::Architecture;
pub use error::Error;
pub use gguf::from_gguf;
pub use hf::from_hf_config;
pub use hyper::{Activation, Hyper, MAX_CONTEXT, MAX_EXPERTS, MAX_LAYERS, MAX_PIECES, MAX_VOCAB, MAX_WIDTH};
pub use piece::{Convention, Order, Piece, Place, Role, layer_of, rows};
pub use registry::{architectures, by_name};
pub use rope::RopeScaling;
pub use spec::Part;

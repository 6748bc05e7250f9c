//! Containers of model weights: detect, read lazily, validate, lay out for writing.

pub mod adapter;
mod archive;
mod arrays;
mod container;
mod error;
pub mod files;
pub mod gguf;
pub mod hub;
pub mod json;
pub mod libraries;
pub mod mlx;
pub mod npz;
pub mod pytorch;
pub mod safetensors;
mod source;
mod zip;

pub use container::{
    Checksum, Container, ContainerRef, Layout, LayoutPart, Probe, Target, TargetTensor, container, containers, detect,
    open, register,
};
pub use error::{Error, Problem};
pub use hub::resolve_model;
pub use source::{Entry, Extent, Part, Source, SourceBuilder, expected_bytes};

/// The built-in containers, in the order in which they are tried.
static BUILT_IN: &[ContainerRef] = &[&gguf::Gguf, &mlx::Mlx, &safetensors::SafeTensors, &npz::Npz, &pytorch::PyTorch];

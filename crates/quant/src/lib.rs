//! Quantization schemes: planes and grids, encoders and decoders, recipes.

mod affine;
pub mod arrange;
pub mod awq;
pub mod bnb;
pub mod compressed;
mod error;
pub mod float;
pub mod fp8;
mod gather;
pub mod ggml;
pub mod gptq;
mod grouped;
pub mod hqq;
pub mod measure;
pub mod mlx;
pub mod nvfp4;
pub mod quanto;
pub mod recipe;
mod registry;
mod repack;
mod row_major;
mod scheme;
mod shape;
pub mod simd;
mod slots;

pub use error::Error;
pub use registry::{nearest, register, scheme, schemes};
pub use repack::{Moved, Repack, repack};
pub use scheme::{Family, Grid, Importance, Packing, Plane, PlaneType, Scheme, SchemeRef, Tally};

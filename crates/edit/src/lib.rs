//! Changes to weights, block of rows by block of rows: what adapters and other models do to the values of a tensor.
//!
//! Nothing here knows files, names or schemes: values come decoded, as rows of `f32`.

pub mod low_rank;
pub mod models;

pub use low_rank::Product;

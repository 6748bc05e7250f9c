//! The schemes of GGML, bit for bit.

use crate::SchemeRef;

mod block;
mod codes;
mod k;
mod lanes;
mod lattice;
mod legacy;
mod small;

pub use lattice::grids as lattices;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    [legacy::SCHEMES, small::SCHEMES, k::SCHEMES, lattice::SCHEMES].concat()
}

//! The schemes of GGML, bit for bit.

use crate::SchemeRef;

mod k;
mod lattice;
mod legacy;
mod small;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    [legacy::SCHEMES, small::SCHEMES, k::SCHEMES, lattice::SCHEMES].concat()
}

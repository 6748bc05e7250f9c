//! The schemes of GGML, bit for bit.

use crate::SchemeRef;

/// All of them, in GGML's order of types.
pub static SCHEMES: &[SchemeRef] = &[];

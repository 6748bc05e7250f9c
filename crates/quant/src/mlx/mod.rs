//! The schemes of MLX, bit for bit.

use crate::SchemeRef;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    Vec::new()
}

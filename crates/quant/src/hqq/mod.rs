//! The schemes of HQQ (half-quadratic quantization, Badri and Shaji 2023): `value = (code - zero) * scale` for each group of
//! a row, the zero found by HQQ's default optimizer as it runs on a CPU in `f32`, grouped along rows (`axis=1`).

mod affine;
mod fit;
mod power;

use std::sync::Arc;

use crate::SchemeRef;
use crate::arrange::ArrangementRef;
use crate::slots::Slots;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    affine::SCHEMES.iter().map(|s| s as SchemeRef).collect()
}

/// How HQQ stores them: `W_q` has a group in each row and in each of its words the codes of 1, 2, 4, 8 or 10 groups that
/// lie equally far apart, the first in the highest bits; `scale` and `zero` have one row per group.
pub fn arrangement() -> ArrangementRef {
    Arc::new(Slots { names: ["W_q", "scale", "zero"], first_highest: true })
}

//! Blocks of 32 values with a scale, and perhaps a minimum, in half precision.

use crate::SchemeRef;

mod affine;
mod q8_0;
mod search;
mod symmetric;

pub(super) static SCHEMES: &[SchemeRef] =
    &[&symmetric::Q4_0, &affine::Q4_1, &symmetric::Q5_0, &affine::Q5_1, &q8_0::Q8_0];

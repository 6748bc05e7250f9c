//! Codes that index a table of 16 values, small floats, and codes of three values.

use crate::SchemeRef;

mod fp4;
mod iq4;
mod ternary;

pub(super) static SCHEMES: &[SchemeRef] =
    &[&iq4::IQ4_NL, &iq4::IQ4_XS, &fp4::MXFP4, &fp4::NVFP4, &ternary::TQ1_0, &ternary::TQ2_0];

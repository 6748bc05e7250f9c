//! K-quants: super-blocks of 256 values whose sub-blocks have scales (and minima) that are quantized themselves.
//!
//! The plain encoders in [`search`], and `one` of [`affine`] and [`symmetric`], define the bytes. [`lanes`] and `many` do
//! the same for sixteen super-blocks at a time.

mod affine;
mod batch;
mod lanes;
mod q2;
mod q3;
mod q4;
mod q5;
mod q6;
mod search;
mod symmetric;
mod vector;

use crate::SchemeRef;

pub(super) use search::{nearest, positive};

pub(super) static SCHEMES: &[SchemeRef] = &[&q2::Q2_K, &q3::Q3_K, &q4::Q4_K, &q5::Q5_K, &q6::Q6_K];

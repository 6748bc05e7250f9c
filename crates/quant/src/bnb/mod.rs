//! The schemes of bitsandbytes, bit for bit with its CPU back end: `nf4` and `fp4`, both with or without quantized scales,
//! and the row-wise `int8` of LLM.int8().
//!
//! The 4-bit types are of QLoRA (arXiv 2305.14314): a block of the flat tensor is divided by its largest magnitude, and
//! each quotient becomes the index of the nearest of 16 values. Rows are whole blocks here.

mod four;
mod int8;
mod nested;

use crate::SchemeRef;

/// All of them.
pub fn schemes() -> Vec<SchemeRef> {
    let four = four::SCHEMES.iter().map(|s| s as SchemeRef);
    four.chain(nested::SCHEMES.iter().map(|s| s as SchemeRef)).chain([&int8::Int8 as SchemeRef]).collect()
}

/// Values of the dynamic map that quantized scales are indices of, in ascending order.
pub fn dynamic_map() -> &'static [f32; 256] {
    nested::map()
}

/// Values of the codes of NF4 (`normal`) or FP4.
pub fn values(normal: bool) -> &'static [f32; 16] {
    if normal { &four::NF4.values } else { &four::FP4.values }
}

//! Integer codes with a scale and an offset for each group of a row: what MLX, HQQ, Quanto, GPTQ, AWQ and
//! compressed-tensors have in common. Codes of a row are one little-endian string of bits.

mod decode;
mod scheme;

pub(crate) use decode::{Codes, Offsets, Order};
pub(crate) use scheme::Affine;

/// Smallest and largest of whole sixteens of values; not-a-number is passed over.
#[inline(always)]
pub(crate) fn bounds(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for v in values.as_chunks::<16>().0 {
        for j in 0..16 {
            low[j] = if v[j] < low[j] { v[j] } else { low[j] };
            high[j] = if v[j] > high[j] { v[j] } else { high[j] };
        }
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            low[j] = if low[j + half] < low[j] { low[j + half] } else { low[j] };
            high[j] = if high[j + half] > high[j] { high[j + half] } else { high[j] };
        }
    }
    (low[0], high[0])
}

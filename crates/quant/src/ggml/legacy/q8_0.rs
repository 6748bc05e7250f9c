//! Q8_0: signed bytes times a scale.

use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, blocks};
use crate::ggml::codes::{BLOCK, half_at, inverse, largest_magnitude, put_half, whole_to_byte};
use crate::simd::per_level;

const BYTES: usize = 2 + BLOCK;

pub(super) static Q8_0: BlockScheme = BlockScheme {
    name: "q8_0",
    grid: Grid::Affine { bits: 8, group: BLOCK, symmetric: true },
    block: BLOCK,
    planes: &blocks(BYTES),
    error_ceiling: 0.006,
    encode: Encode::Plain(encode),
    decode,
};

per_level! {
    fn encode(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BYTES>().0) {
            let scale = largest_magnitude(x) / 127.0;
            let inverse = inverse(scale);
            put_half(block, 0, scale);
            for i in 0..BLOCK {
                block[2 + i] = whole_to_byte((x[i] * inverse).round());
            }
        }
    }
}

per_level! {
    fn decode(bytes: &[u8], values: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<BLOCK>().0) {
            let scale = half_at(block, 0);
            for i in 0..BLOCK {
                out[i] = f32::from(block[2 + i] as i8) * scale;
            }
        }
    }
}

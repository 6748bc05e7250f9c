//! MXFP4 and NVFP4: four-bit floats with a power of two per 32 values, or an eight-bit float per 16.

use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, blocks};
use crate::ggml::codes::largest_magnitude;
use crate::simd::codes::{Places, entries};
use crate::simd::{level, per_level};

const MX_BLOCK: usize = 32;
const MX_BYTES: usize = 1 + 16;
const NV_BLOCK: usize = 64;
const NV_GROUP: usize = 16;
const NV_BYTES: usize = 4 + 32;

pub(super) static MXFP4: BlockScheme = BlockScheme {
    name: "mxfp4",
    grid: Grid::Table16 { group: MX_BLOCK },
    block: MX_BLOCK,
    planes: &blocks(MX_BYTES),
    error_ceiling: 0.15,
    encode: Encode::Plain(encode_mx),
    decode: decode_mx,
};

pub(super) static NVFP4: BlockScheme = BlockScheme {
    name: "nvfp4",
    grid: Grid::Table16 { group: NV_GROUP },
    block: NV_BLOCK,
    planes: &blocks(NV_BYTES),
    error_ceiling: 0.12,
    encode: Encode::Plain(encode_nv),
    decode: decode_nv,
};

/// Values of the codes, doubled to be whole; scales are halved in turn.
static VALUES: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

static NIBBLES: [Places; 2] = [Places::nibbles(false), Places::nibbles(true)];
static HALVES: Places = Places::halves();

/// Beyond these magnitudes the next code is nearer; at them, the smaller one is taken.
const MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// The code nearest to each value. A scale of 0 gives code 0.
#[inline(always)]
fn nearest<const N: usize>(x: &[f32; N], scale: f32) -> [u8; N] {
    let scale = if scale == 0.0 { f32::INFINITY } else { scale };
    let limits = MIDDLES.map(|middle| middle * scale);
    let mut codes = [0; N];
    for i in 0..N {
        let mut code = 0;
        for limit in limits {
            code += u32::from(x[i].abs() > limit);
        }
        let sign = if x[i] < 0.0 && code > 0 { 8 } else { 0 };
        codes[i] = (code + sign) as u8;
    }
    codes
}

/// The exponent byte of a block: the largest value's magnitude lies in the top binade of the codes.
fn exponent(largest: f32) -> u8 {
    if largest <= 0.0 {
        return 0;
    }
    // The reference takes the logarithm in single precision, which just below a power of two rounds up to it.
    let log2 = f64::from(largest).log2() as f32;
    (log2.floor() + 125.0).clamp(0.0, 255.0) as u8
}

/// Half of 2^(exponent - 127).
fn half_power(exponent: u8) -> f32 {
    let bits = u32::from(exponent);
    f32::from_bits(if bits < 2 { 0x0020_0000 << bits } else { (bits - 1) << 23 })
}

per_level! {
    fn encode_mx(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<MX_BLOCK>().0.iter().zip(bytes.as_chunks_mut::<MX_BYTES>().0) {
            block[0] = exponent(largest_magnitude(x));
            let codes = nearest(x, half_power(block[0]));
            for j in 0..16 {
                block[1 + j] = codes[j] | codes[j + 16] << 4;
            }
        }
    }
}

per_level! {
    fn decode_mx(bytes: &[u8], values: &mut [f32]) {
        let level = level();
        for (block, out) in bytes.as_chunks::<MX_BYTES>().0.iter().zip(values.as_chunks_mut::<MX_BLOCK>().0) {
            let scale = half_power(block[0]);
            for (out, nibbles) in out.as_chunks_mut().0.iter_mut().zip(&NIBBLES) {
                entries(level, nibbles, &VALUES, &block[1..], out);
                for v in out {
                    *v *= scale;
                }
            }
        }
    }
}

/// An eight-bit float without sign: bias 7, three bits of mantissa, at most 448. Halves round away from zero.
fn to_scale(value: f32) -> u8 {
    // Not-a-number has no scale either.
    if value.is_nan() || value <= 0.0 {
        return 0;
    }
    if value < 1.0 / 64.0 {
        return ((value * 512.0 + 0.5) as u8).min(7);
    }
    let bits = value.to_bits();
    let code = (bits >> 20) + (bits >> 19 & 1) - (120 << 3);
    // The reference gives all of the top binade the largest scale.
    if code >= 15 << 3 { 0x7e } else { code as u8 }
}

/// Half the value of such a float, whatever its top bit.
const fn half_scale(code: u8) -> f32 {
    let mantissa = (code & 7) as f32;
    match (code, code >> 3 & 15) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 1024.0,
        (_, exponent) => (1.0 + mantissa / 8.0) * f32::from_bits((exponent as u32 + 119) << 23),
    }
}

static HALF_SCALES: [f32; 256] = {
    let (mut scales, mut code) = ([0.0; 256], 0);
    while code < 256 {
        scales[code] = half_scale(code as u8);
        code += 1;
    }
    scales
};

per_level! {
    fn encode_nv(values: &[f32], bytes: &mut [u8]) {
        for (x, block) in values.as_chunks::<NV_BLOCK>().0.iter().zip(bytes.as_chunks_mut::<NV_BYTES>().0) {
            for (s, x) in x.as_chunks::<NV_GROUP>().0.iter().enumerate() {
                block[s] = to_scale(largest_magnitude(x) / 6.0);
                let codes = nearest(x, half_scale(block[s]));
                for j in 0..8 {
                    block[4 + s * 8 + j] = codes[j] | codes[j + 8] << 4;
                }
            }
        }
    }
}

per_level! {
    fn decode_nv(bytes: &[u8], values: &mut [f32]) {
        let level = level();
        for (i, out) in values.as_chunks_mut::<NV_BLOCK>().0.iter_mut().enumerate() {
            let block = &bytes[i * NV_BYTES..];
            for (s, out) in out.as_chunks_mut::<NV_GROUP>().0.iter_mut().enumerate() {
                entries(level, &HALVES, &VALUES, &block[4 + s * 8..], out);
                let scale = HALF_SCALES[usize::from(block[s])];
                for v in out {
                    *v *= scale;
                }
            }
        }
    }
}

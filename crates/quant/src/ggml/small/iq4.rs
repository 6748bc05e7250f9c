//! IQ4_NL and IQ4_XS: codes into a table of 16 unevenly spaced values, with a scale per 32 of them.

use crate::Grid;
use crate::ggml::block::{BlockScheme, Encode, Weighted, blocks};
use crate::ggml::codes::{BLOCK as GROUP, half_at, inverse, pack_nibbles, put_half};
use crate::ggml::lanes::{LANES, largest, map, nearest, transpose, zip};
use crate::simd::{per_level, turns};

const NL_BYTES: usize = 2 + 16;
const XS_BLOCK: usize = 256;
const XS_BYTES: usize = 2 + 2 + 4 + 128;
const XS_GROUPS: usize = XS_BLOCK / GROUP;

pub(super) static IQ4_NL: BlockScheme = BlockScheme {
    name: "iq4_nl",
    grid: Grid::Table16 { group: GROUP },
    block: GROUP,
    planes: &blocks(NL_BYTES),
    error_ceiling: 0.09,
    encode: Encode::Weighted { plain: encode_nl, weighted: weighted_nl },
    decode: decode_nl,
};

pub(super) static IQ4_XS: BlockScheme = BlockScheme {
    name: "iq4_xs",
    grid: Grid::Table16 { group: GROUP },
    block: XS_BLOCK,
    planes: &blocks(XS_BYTES),
    error_ceiling: 0.09,
    encode: Encode::Weighted { plain: encode_xs, weighted: weighted_xs },
    decode: decode_xs,
};

const VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// A value below its middle takes the lower code. Distances are exact near the middles, so this is the reference's rule.
const fn middle(code: usize) -> f32 {
    (VALUES[code] + VALUES[code + 1]) / 2.0
}

/// Groups whose largest magnitude is below this are zero.
const NOTHING: f32 = 1e-15;

type Lanes = [f32; LANES];

/// A group per lane.
type Groups = [Lanes; GROUP];

/// The value of the nearest code.
#[inline(always)]
fn snap(x: f32) -> f32 {
    let mut value = VALUES[0];
    for code in 0..15 {
        value = if x < middle(code) { value } else { VALUES[code + 1] };
    }
    value
}

per_level! {
    /// The nearest codes, packed.
    fn pack_codes(x: &[f32; GROUP], inverse: f32, bytes: &mut [u8]) {
        let mut codes = [0; GROUP];
        for i in 0..GROUP {
            let scaled = x[i] * inverse;
            let mut code = 0;
            for below in 0..15 {
                code += if scaled < middle(below) { 0 } else { 1u32 };
            }
            codes[i] = code as u8;
        }
        pack_nibbles(&codes, bytes);
    }
}

per_level! {
    /// Weighted sums of values times their nearest codes' values, and of the latter squared.
    fn sums(x: &Groups, weights: &Groups, inverse: &Lanes, qx: &mut Lanes, q2: &mut Lanes) {
        let (mut sum_qx, mut sum_q2) = ([0.0; LANES], [0.0; LANES]);
        for (x, w) in x.iter().zip(weights) {
            for n in 0..LANES {
                let q = snap(inverse[n] * x[n]);
                sum_qx[n] += w[n] * q * x[n];
                sum_q2[n] += w[n] * q * q;
            }
        }
        (*qx, *q2) = (sum_qx, sum_q2);
    }
}

/// The scale of each group that fits best; 16 candidates.
fn search(x: &Groups, weights: &Groups) -> Lanes {
    let (max, magnitude) = largest(x);
    let (mut qx, mut q2) = ([0.0; LANES], [0.0; LANES]);
    sums(x, weights, &map(max, |max| 1.0 / (-max / VALUES[0])), &mut qx, &mut q2);
    let mut scale = zip(qx, q2, |qx, q2| if q2 > 0.0 { qx / q2 } else { 0.0 });
    let mut best = zip(scale, qx, |scale, qx| scale * qx);
    for step in -7i8..=7 {
        sums(x, weights, &map(max, |max| (f32::from(step) + VALUES[0]) / max), &mut qx, &mut q2);
        for n in 0..LANES {
            let better = (q2[n] > 0.0) & (qx[n] * qx[n] > best[n] * q2[n]);
            let fitted = qx[n] / q2[n];
            scale[n] = if better { fitted } else { scale[n] };
            best[n] = if better { fitted * qx[n] } else { best[n] };
        }
    }
    zip(scale, magnitude, |scale, magnitude| if magnitude < NOTHING { 0.0 } else { scale })
}

/// Twice the mean square; weights rest on it. Summed in order.
fn energy(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, v| sum + v * v) * (2.0 / x.len() as f32)
}

/// Scales of up to [`LANES`] groups, from `first` on. `block` is how many groups share their energy.
fn scales(values: &[[f32; GROUP]], importance: Option<&[[f32; GROUP]]>, first: usize, block: usize) -> Lanes {
    let last = values.len().min(first + LANES);
    let x: Groups = transpose(&values[first..last]);
    let mut weights = x;
    let Some(importance) = importance else {
        weights.iter_mut().for_each(|w| *w = map(*w, |x| x * x));
        return search(&x, &weights);
    };
    let (mut columns, mut sigma2) = ([[0.0; GROUP]; LANES], [0.0; LANES]);
    for start in (first..last).step_by(block) {
        let energy = energy(values[start..start + block].as_flattened());
        for group in start..start + block {
            columns[group - first] = importance[group % importance.len()];
            sigma2[group - first] = energy;
        }
    }
    for (w, c) in weights.iter_mut().zip(transpose(&columns)) {
        *w = zip(c, zip(sigma2, *w, |s, x| (s + x * x).sqrt()), |c, root| c * root);
    }
    search(&x, &weights)
}

fn encode_nl_blocks(values: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
    let values = values.as_chunks::<GROUP>().0;
    let importance = importance.map(|i| i.as_chunks::<GROUP>().0);
    for (i, out) in bytes.as_chunks_mut::<NL_BYTES>().0.chunks_mut(LANES).enumerate() {
        let scales = scales(values, importance, i * LANES, 1);
        for ((block, x), scale) in out.iter_mut().zip(&values[i * LANES..]).zip(scales) {
            put_half(block, 0, scale);
            pack_codes(x, inverse(scale), &mut block[2..]);
        }
    }
}

fn encode_xs_blocks(values: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
    let values = values.as_chunks::<GROUP>().0;
    let importance = importance.map(|i| i.as_chunks::<GROUP>().0);
    for (i, out) in bytes.as_chunks_mut::<XS_BYTES>().0.chunks_mut(LANES / XS_GROUPS).enumerate() {
        let scales = scales(values, importance, i * LANES, XS_GROUPS);
        let groups = values[i * LANES..].chunks(XS_GROUPS);
        for ((block, x), scales) in out.iter_mut().zip(groups).zip(scales.as_chunks::<XS_GROUPS>().0) {
            pack_xs(block, x, scales);
        }
    }
}

/// Scales of groups become six bits each, relative to the largest; codes follow the rounded scales.
fn pack_xs(block: &mut [u8; XS_BYTES], x: &[[f32; GROUP]], scales: &[f32; XS_GROUPS]) {
    let largest = scales.iter().fold(0.0f32, |largest, s| if s.abs() > largest.abs() { *s } else { largest });
    let scale = -largest / 32.0;
    let inverse_scale = inverse(scale);
    put_half(block, 0, scale);
    let (mut low, mut high) = (0u32, 0u16);
    for (g, x) in x.iter().enumerate() {
        let steps = nearest(inverse_scale * scales[g]).clamp(-32.0, 31.0);
        pack_codes(x, inverse(scale * steps), &mut block[8 + 16 * g..]);
        let steps = (steps + 32.0) as u16;
        low |= u32::from(steps & 15) << (4 * g);
        high |= (steps >> 4) << (2 * g);
    }
    block[2..4].copy_from_slice(&high.to_le_bytes());
    block[4..8].copy_from_slice(&low.to_le_bytes());
}

fn encode_nl(values: &[f32], bytes: &mut [u8]) {
    encode_nl_blocks(values, None, bytes);
}

fn weighted_nl(rows: Weighted<'_>, bytes: &mut [u8]) {
    encode_nl_blocks(rows.values, Some(rows.importance), bytes);
}

fn encode_xs(values: &[f32], bytes: &mut [u8]) {
    encode_xs_blocks(values, None, bytes);
}

fn weighted_xs(rows: Weighted<'_>, bytes: &mut [u8]) {
    encode_xs_blocks(rows.values, Some(rows.importance), bytes);
}

per_level! {
    fn decode_nl(bytes: &[u8], values: &mut [f32]) {
        let n = turns(GROUP / 2);
        for (block, out) in bytes.as_chunks::<NL_BYTES>().0.iter().zip(values.as_chunks_mut::<GROUP>().0) {
            let scale = half_at(block, 0);
            let (low, high) = out.split_at_mut(GROUP / 2);
            for ((low, high), byte) in low[..n].iter_mut().zip(&mut high[..n]).zip(&block[2..][..n]) {
                *low = scale * VALUES[usize::from(byte & 15)];
                *high = scale * VALUES[usize::from(byte >> 4)];
            }
        }
    }
}

per_level! {
    fn decode_xs(bytes: &[u8], values: &mut [f32]) {
        let n = turns(GROUP / 2);
        for (block, out) in bytes.as_chunks::<XS_BYTES>().0.iter().zip(values.as_chunks_mut::<XS_BLOCK>().0) {
            let scale = half_at(block, 0);
            let high = u16::from_le_bytes([block[2], block[3]]);
            for (g, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
                let low = u16::from(block[4 + g / 2] >> (4 * (g % 2)) & 15);
                let steps = low | (high >> (2 * g) & 3) << 4;
                let scale = scale * (f32::from(steps) - 32.0);
                let (low, high) = out.split_at_mut(GROUP / 2);
                for ((low, high), byte) in low[..n].iter_mut().zip(&mut high[..n]).zip(&block[8 + 16 * g..][..n]) {
                    *low = scale * VALUES[usize::from(byte & 15)];
                    *high = scale * VALUES[usize::from(byte >> 4)];
                }
            }
        }
    }
}

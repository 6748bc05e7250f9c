//! The lattice points that fit some values best, for many scales at once: one scale per lane.
//!
//! Order and rounding of all operations are llama.cpp's.

use super::neighbours::{CHUNK, Lattice, code, code_bits};
use crate::ggml::k::nearest;

/// Scales that share a window of lanes.
const WINDOW: usize = 8;

/// Set in the key of a point that values do not round to.
pub(super) const MOVED: u32 = 1 << 31;

/// Candidate scales.
pub(super) struct Scales<const N: usize> {
    scale: [f32; N],
    inverse: [f32; N],
}

impl<const N: usize> Scales<N> {
    /// From `1 / scale`.
    #[inline(always)]
    pub fn new(inverse: [f32; N]) -> Self {
        let mut scale = [0.0; N];
        for n in 0..N {
            scale[n] = 1.0 / inverse[n];
        }
        Self { scale, inverse }
    }
}

/// The key that magnitudes round to, where code `c` stands for `2 * c + 1` times the scale.
#[inline(always)]
fn round<const DIM: usize, const N: usize>(x: &[f32; DIM], inverse: &[f32; N], max_code: i32) -> [u32; N] {
    let mut keys = [0; N];
    for (i, x) in x.iter().enumerate() {
        for n in 0..N {
            let code = nearest(0.5 * (inverse[n] * x - 1.0)).min(max_code).max(0);
            keys[n] |= (code as u32) << (code_bits(DIM) * i);
        }
    }
    keys
}

/// The point for each scale: what the values round to if that is one, else the best of those around it.
#[inline(always)]
pub(super) fn points<const DIM: usize, const N: usize>(
    lattice: &Lattice<DIM>,
    x: &[f32; DIM],
    weights: &[f32; DIM],
    scales: &Scales<N>,
    max_code: i32,
) -> [u32; N] {
    let rounded = round(x, &scales.inverse, max_code);
    let mut keys = rounded;
    let mut start = 0;
    while start < N {
        // Neighbouring scales mostly round to the same codes.
        let mut end = start + 1;
        while end < N && end < start + WINDOW && rounded[end] == rounded[start] {
            end += 1;
        }
        let near = lattice.near(rounded[start]);
        if u32::from(near[0]) != rounded[start] {
            let from = start.min(N - WINDOW);
            let mut scale = [0.0; WINDOW];
            scale.copy_from_slice(&scales.scale[from..from + WINDOW]);
            let best = best_of(near, x, weights, &scale);
            keys[start..end].copy_from_slice(&best[start - from..end - from]);
        }
        start = end;
    }
    keys
}

/// The first of the points that minimise the weighted square error, for each scale.
#[inline(always)]
fn best_of<const DIM: usize>(
    near: &[u16],
    x: &[f32; DIM],
    weights: &[f32; DIM],
    scale: &[f32; WINDOW],
) -> [u32; WINDOW] {
    let mut terms = [[[0.0; WINDOW]; 4]; DIM];
    if DIM == 8 {
        for i in 0..DIM {
            for (level, terms) in terms[i].iter_mut().enumerate().take(3) {
                *terms = term((2 * level + 1) as f32, x[i], weights[i], scale);
            }
        }
    }
    let (mut best, mut least) = ([u32::from(near[0]) | MOVED; WINDOW], [f32::MAX; WINDOW]);
    for key in near {
        let key = u32::from(*key);
        let mut error = [0.0; WINDOW];
        for i in 0..DIM {
            let code = code::<DIM>(key, i) as usize;
            // Lists of points with many coordinates are long enough to pay for the table.
            let term = if DIM == 8 { terms[i][code & 3] } else { term(ODD[code & 7], x[i], weights[i], scale) };
            for n in 0..WINDOW {
                error[n] += term[n];
            }
        }
        for n in 0..WINDOW {
            let better = error[n] < least[n];
            least[n] = if better { error[n] } else { least[n] };
            best[n] = if better { key | MOVED } else { best[n] };
        }
    }
    best
}

const ODD: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];

#[inline(always)]
fn term(level: f32, x: f32, weight: f32, scale: &[f32; WINDOW]) -> [f32; WINDOW] {
    let mut terms = [0.0; WINDOW];
    for n in 0..WINDOW {
        let difference = scale[n] * level - x;
        terms[n] = weight * difference * difference;
    }
    terms
}

/// As [`points`] for one scale: the points near lie side by side instead.
#[inline(always)]
pub(super) fn point<const DIM: usize>(
    lattice: &Lattice<DIM>,
    x: &[f32; DIM],
    weights: &[f32; DIM],
    scale: f32,
    max_code: i32,
) -> u32 {
    let [key] = round(x, &[1.0 / scale], max_code);
    if lattice.is_point(key) {
        return key;
    }
    let mut terms = [[0.0; 8]; DIM];
    for i in 0..DIM {
        for (level, term) in terms[i].iter_mut().enumerate() {
            let difference = scale * ODD[level] - x[i];
            *term = weights[i] * difference * difference;
        }
    }
    least(lattice, key, &terms)
}

/// The first of the points near a key whose sum of one term per coordinate is least; terms go by coordinate, then code.
#[inline(always)]
pub(super) fn least<const DIM: usize>(lattice: &Lattice<DIM>, key: u32, terms: &[[f32; 8]; DIM]) -> u32 {
    let chunks = lattice.near_chunks(key);
    let (mut best, mut least) = ([0u32; CHUNK], [f32::MAX; CHUNK]);
    for (c, chunk) in chunks.iter().enumerate() {
        let mut error = [0.0; CHUNK];
        for (i, terms) in terms.iter().enumerate() {
            for n in 0..CHUNK {
                error[n] += pick::<DIM>(code::<DIM>(u32::from(chunk[n]), i), terms);
            }
        }
        for n in 0..CHUNK {
            let better = error[n] < least[n];
            least[n] = if better { error[n] } else { least[n] };
            best[n] = if better { (c * CHUNK + n) as u32 } else { best[n] };
        }
    }
    let (mut place, mut error) = (0, f32::MAX);
    for n in 0..CHUNK {
        if least[n] < error || least[n] == error && best[n] < place {
            (place, error) = (best[n], least[n]);
        }
    }
    u32::from(chunks[place as usize / CHUNK][place as usize % CHUNK])
}

/// The term of a code, by selections, which become vectors where a table would not.
#[inline(always)]
fn pick<const DIM: usize>(code: u32, terms: &[f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = *terms;
    if DIM == 8 {
        return either(code & 2, c, either(code & 1, b, a));
    }
    let low = either(code & 2, either(code & 1, d, c), either(code & 1, b, a));
    let high = either(code & 2, either(code & 1, h, g), either(code & 1, f, e));
    either(code & 4, high, low)
}

#[inline(always)]
fn either(bit: u32, set: f32, unset: f32) -> f32 {
    if bit != 0 { set } else { unset }
}

//! The encoder of IQ2 and IQ3: points for magnitudes, signs apart.
//!
//! Groups of 16 or 32 values share a scale. A few candidates for it are tried at once, one per lane; the best is then fitted
//! to the points it led to. Scales become odd multiples, from 1 to 31, of one for the block.

use super::BLOCK;
use super::neighbours::{Lattice, code};
use super::search::{MOVED, Scales, point, points};
use crate::float::f32_to_f16_bits;
use crate::ggml::block::Weighted;
use crate::ggml::k::{nearest, positive};
use crate::ggml::lanes::sums_of_squares;

/// What tells the schemes apart. Groups of `GROUP` values, points of `DIM` coordinates, candidates in `LANES` lanes.
pub(super) trait Magnitudes<const GROUP: usize, const DIM: usize, const LANES: usize, const BYTES: usize> {
    /// Codes are less than this; the largest stands for `2 * CODES - 1`.
    const CODES: i32;
    /// Candidates on either side of the scale that gives the largest value the largest code, and their distance.
    const CANDIDATES: (i32, f32);
    /// A group of smaller values is zero.
    const NOTHING: f32;
    /// Multiple of the block's mean square that weights rest on.
    const ENERGY: f32;
    /// The number of negative values of eight must be even; the least important sign gives way.
    const EVEN_SIGNS: bool;
    const SECOND_ROUND: SecondRound;
    /// Factor of the block's scale that reduced the error in practice.
    const CORRECTION: f32;

    fn lattice() -> &'static Lattice<DIM>;

    /// Weight of a value without importance.
    fn plain_weight(x: f32, _energy: f32) -> f32 {
        x * x
    }

    fn pack(block: &Coded, bytes: &mut [u8; BYTES]);
}

/// Which points are looked for again when the scale of a group is settled.
pub(super) enum SecondRound {
    /// Those that their values do not round to.
    Moved,
    /// All, if there is one that its values do not round to.
    AllIfMoved,
    /// All. Candidates lie around a scale fitted to codes of one more step, not around the largest value.
    All,
}

/// A block in numbers; the first 32 of `points` where there are eight values to one.
pub(super) struct Coded {
    /// A half.
    pub scale: u16,
    /// Multiple of each group's scale: `2 * step + 1`.
    pub steps: [u8; 16],
    pub points: [u16; 64],
    /// Eight values to a byte; a set bit negates.
    pub signs: [u8; 32],
    /// Groups that have no scale: all values are zero, or next to it.
    pub empty: u16,
}

impl Coded {
    const ZERO: Self = Self { scale: 0, steps: [0; 16], points: [0; 64], signs: [0; 32], empty: 0 };
}

#[inline(always)]
pub(super) fn encode<S, const GROUP: usize, const DIM: usize, const LANES: usize, const BYTES: usize>(
    rows: Weighted<'_>,
    bytes: &mut [u8],
) where
    S: Magnitudes<GROUP, DIM, LANES, BYTES>,
{
    let lattice = S::lattice();
    let blocks = rows.values.as_chunks::<BLOCK>().0;
    let mut importance = rows.importance.as_chunks::<BLOCK>().0.iter().cycle();
    let sums = sums_of_squares(rows.values, BLOCK);
    for ((x, sum), bytes) in blocks.iter().zip(sums).zip(bytes.as_chunks_mut::<BYTES>().0) {
        let energy = S::ENERGY * sum / BLOCK as f32;
        let mut weights = [0.0; BLOCK];
        match importance.next() {
            Some(importance) => {
                for i in 0..BLOCK {
                    weights[i] = importance[i] * (energy + x[i] * x[i]).sqrt();
                }
            }
            None => {
                for i in 0..BLOCK {
                    weights[i] = S::plain_weight(x[i], energy);
                }
            }
        }
        S::pack(&block::<S, GROUP, DIM, LANES, BYTES>(lattice, x, &weights), bytes);
    }
}

#[inline(always)]
fn block<S, const GROUP: usize, const DIM: usize, const LANES: usize, const BYTES: usize>(
    lattice: &Lattice<DIM>,
    x: &[f32; BLOCK],
    weights: &[f32; BLOCK],
) -> Coded
where
    S: Magnitudes<GROUP, DIM, LANES, BYTES>,
{
    let mut coded = Coded::ZERO;
    let mut scales = [0.0; 16];
    let mut largest = 0.0;
    coded.empty = u16::MAX;
    let groups = x.as_chunks::<GROUP>().0.iter().zip(weights.as_chunks::<GROUP>().0);
    for (g, (x, weights)) in groups.enumerate() {
        let mut magnitudes = [0.0; GROUP];
        let mut signs = [0; 4];
        for k in 0..GROUP / 8 {
            signs[k] = split_signs(&x[8 * k..], &weights[8 * k..], S::EVEN_SIGNS, &mut magnitudes[8 * k..8 * k + 8]);
        }
        let max = magnitudes.iter().fold(magnitudes[0], |max, x| if max > *x { max } else { *x });
        if max < S::NOTHING {
            continue;
        }
        let Some((mut scale, keys)) = fit::<S, GROUP, DIM, LANES, BYTES>(lattice, &magnitudes, weights, max) else {
            continue;
        };
        if scale < 0.0 {
            scale = -scale;
            signs = signs.map(|s| !s);
        }
        for (k, key) in keys.iter().enumerate().take(GROUP / DIM) {
            coded.points[g * GROUP / DIM + k] = lattice.number(key & !MOVED);
        }
        coded.signs[g * GROUP / 8..][..GROUP / 8].copy_from_slice(&signs[..GROUP / 8]);
        coded.empty &= !(1 << g);
        scales[g] = scale;
        largest = if largest > scale { largest } else { scale };
    }
    if largest == 0.0 {
        // What the others stored of such a block stays.
        return if S::EVEN_SIGNS { Coded::ZERO } else { coded };
    }
    let scale = largest / 31.0;
    coded.scale = f32_to_f16_bits(scale * S::CORRECTION);
    let inverse = 1.0 / scale;
    for (step, scale) in coded.steps.iter_mut().zip(scales).take(BLOCK / GROUP) {
        *step = nearest(0.5 * (inverse * scale - 1.0)).clamp(0, 15) as u8;
    }
    coded
}

/// Signs of eight values, and their magnitudes; one of those becomes negative if signs must be even and are not.
#[inline(always)]
fn split_signs(x: &[f32], weights: &[f32], even: bool, magnitudes: &mut [f32]) -> u8 {
    let mut signs = 0;
    for i in 0..8 {
        let negative = x[i] < 0.0 || x[i].is_nan();
        magnitudes[i] = if negative { -x[i] } else { x[i] };
        signs |= u8::from(negative) << i;
    }
    if even && signs.count_ones() % 2 == 1 {
        let cost = |i: usize| weights[i] * x[i] * x[i];
        let (mut cheapest, mut least) = (0, cost(0));
        for i in 1..8 {
            if cost(i) < least {
                (cheapest, least) = (i, cost(i));
            }
        }
        magnitudes[cheapest] = -magnitudes[cheapest];
        signs ^= 1 << cheapest;
    }
    signs
}

/// The scale of a group and the keys of its points; nothing where the scale would not be positive from the start.
#[inline(always)]
fn fit<S, const GROUP: usize, const DIM: usize, const LANES: usize, const BYTES: usize>(
    lattice: &Lattice<DIM>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
    max: f32,
) -> Option<(f32, [u32; 8])>
where
    S: Magnitudes<GROUP, DIM, LANES, BYTES>,
{
    let max_code = S::CODES - 1;
    let top = (2 * S::CODES - 1) as f32;
    let (reach, mut scale) = match S::SECOND_ROUND {
        SecondRound::All => {
            let mut codes = [0; GROUP];
            let scale = positive(x, weights, S::CODES + 1, &mut codes);
            (scale * S::CODES as f32, scale)
        }
        _ => (max, max / top),
    };
    if reach <= 0.0 {
        return None;
    }
    let (each_side, distance) = S::CANDIDATES;
    let mut inverse = [0.0; LANES];
    for (n, inverse) in inverse.iter_mut().enumerate() {
        let step = (n as i32).min(2 * each_side) - each_side;
        *inverse = (top + step as f32 * distance) / reach;
    }
    let scales = Scales::new(inverse);
    let mut errors = [0.0; GROUP];
    for i in 0..GROUP {
        errors[i] = weights[i].sqrt();
    }
    let (x_points, error_points) = (x.as_chunks::<DIM>().0, errors.as_chunks::<DIM>().0);
    let mut tried = [[0; LANES]; 8];
    for k in 0..GROUP / DIM {
        tried[k] = points(lattice, &x_points[k], &error_points[k], &scales, max_code);
    }
    let (products, squares) = sums::<GROUP, DIM, LANES>(x, weights, &tried);
    let (mut best, mut chosen) = (0.0, None);
    for n in 0..=(2 * each_side) as usize {
        if squares[n] > 0.0 && products[n] * products[n] > best * squares[n] {
            scale = products[n] / squares[n];
            best = scale * products[n];
            chosen = Some(n);
        }
    }
    let mut keys = [[0]; 8];
    if let Some(n) = chosen {
        for k in 0..GROUP / DIM {
            keys[k] = [tried[k][n]];
        }
    }
    let moved = keys.iter().any(|[key]| key & MOVED != 0);
    let (again, all) = match S::SECOND_ROUND {
        SecondRound::Moved => (moved, false),
        SecondRound::AllIfMoved => (moved || chosen.is_none(), true),
        SecondRound::All => (true, true),
    };
    if again && scale > 0.0 {
        for k in 0..GROUP / DIM {
            if all || keys[k][0] & MOVED != 0 {
                keys[k] = [point(lattice, &x_points[k], &error_points[k], scale, max_code)];
            }
        }
        let ([products], [squares]) = sums::<GROUP, DIM, 1>(x, weights, &keys);
        if squares > 0.0 {
            scale = products / squares;
        }
    }
    Some((scale, keys.map(|[key]| key)))
}

/// Weighted sums of values times levels and of levels squared, for the points of each lane.
#[inline(always)]
fn sums<const GROUP: usize, const DIM: usize, const N: usize>(
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
    keys: &[[u32; N]; 8],
) -> ([f32; N], [f32; N]) {
    let (mut products, mut squares) = ([0.0; N], [0.0; N]);
    for i in 0..GROUP {
        let (w, wx) = (weights[i], weights[i] * x[i]);
        for n in 0..N {
            let level = (2 * code::<DIM>(keys[i / DIM][n], i % DIM) + 1) as i32 as f32;
            products[n] += wx * level;
            squares[n] += w * level * level;
        }
    }
    (products, squares)
}

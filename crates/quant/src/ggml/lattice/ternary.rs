//! The encoder of IQ1: values of a group become -1, 0 or 1, all moved by an eighth up or down, times a scale.
//!
//! In ascending order, the values that become -1 come first and those that become 1 last, so all ways to cut the order in
//! three are tried. Codes that are no lattice point then give way to one near them.

use super::neighbours::Lattice;
use super::search::least;
use crate::ggml::block::Weighted;
use crate::ggml::lanes::sums_of_squares;

use super::BLOCK;

/// What codes 0, 1 and 2 stand for when moved up, and down.
const LEVELS: [[f32; 3]; 2] = [[-0.875, 0.125, 1.125], [-1.125, -0.125, 0.875]];

/// Cuts that are tried at once.
const WINDOW: usize = 16;

/// The best scale so far, and how it came about.
pub(super) struct Best {
    score: f32,
    scale: f32,
    cut: [usize; 2],
    shifts: Option<usize>,
}

/// Sums for cuts whose second place runs through a window, for `N` ways to move values: of products of values and levels,
/// and of levels squared.
pub(super) struct Sums<const N: usize> {
    products: [[f32; WINDOW]; N],
    squares: [[f32; WINDOW]; N],
}

/// Groups of `GROUP` values that may be moved in `SHIFTS` ways.
pub(super) trait Ternary<const GROUP: usize, const SHIFTS: usize> {
    /// Groups whose values are all smaller are zero.
    const NOTHING: f32;

    /// Sums over the order that cuts need.
    type Prefix;

    /// `order` are the numbers of the values in ascending order.
    fn prefix(x: &[f32; GROUP], weights: &[f32; GROUP], order: &[usize; GROUP]) -> Self::Prefix;

    /// Sums for cuts at `first` and from `second` on.
    fn sums(prefix: &Self::Prefix, first: usize, second: usize) -> Sums<SHIFTS>;

    /// Levels of the eight values numbered `k` (0 for up, 1 for down).
    fn shift(shifts: usize, k: usize) -> usize;
}

/// A group in numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Group {
    pub scale: f32,
    pub points: [u16; 4],
    /// As [`Ternary::shift`] reads it.
    pub shifts: usize,
}

/// Levels of eight values.
#[inline(always)]
pub(super) fn levels(shift: usize) -> &'static [f32; 3] {
    &LEVELS[shift & 1]
}

/// Codes blocks one after the other; weights without importance are the squares of values.
#[inline(always)]
pub(super) fn encode<C: BlockCoder<BYTES>, const BYTES: usize>(rows: Weighted<'_>, bytes: &mut [u8]) {
    let blocks = rows.values.as_chunks::<BLOCK>().0;
    let mut importance = rows.importance.as_chunks::<BLOCK>().0.iter().cycle();
    let sums = sums_of_squares(rows.values, BLOCK);
    for ((x, sum), bytes) in blocks.iter().zip(sums).zip(bytes.as_chunks_mut::<BYTES>().0) {
        let energy = 2.0 * sum / BLOCK as f32;
        let mut weights = [0.0; BLOCK];
        match importance.next() {
            Some(importance) => {
                for i in 0..BLOCK {
                    weights[i] = importance[i] * (energy + x[i] * x[i]).sqrt();
                }
            }
            None => {
                for i in 0..BLOCK {
                    weights[i] = x[i] * x[i];
                }
            }
        }
        C::block(x, &weights, bytes);
    }
}

/// How a block becomes bytes. A trait, because a closure would not be compiled for the instruction set of its caller.
pub(super) trait BlockCoder<const BYTES: usize> {
    fn block(x: &[f32; BLOCK], weights: &[f32; BLOCK], bytes: &mut [u8; BYTES]);
}

/// Numbers of the values in ascending order; equal ones stay in place.
#[inline(always)]
fn sort<const GROUP: usize>(x: &[f32; GROUP]) -> [usize; GROUP] {
    let mut ranks = [0u32; GROUP];
    for j in 0..GROUP {
        for i in 0..GROUP {
            ranks[i] += u32::from((x[j] < x[i]) | ((x[j] == x[i]) & (j < i)));
        }
    }
    let mut order = [0; GROUP];
    for (i, rank) in ranks.iter().enumerate() {
        order[*rank as usize % GROUP] = i;
    }
    order
}

/// Codes a group; nothing where it is zero.
#[inline(always)]
pub(super) fn group<T, const GROUP: usize, const SHIFTS: usize>(
    lattice: &Lattice<8>,
    x: &[f32; GROUP],
    weights: &[f32; GROUP],
) -> Option<Group>
where
    T: Ternary<GROUP, SHIFTS>,
{
    let max = x.iter().fold(x[0].abs(), |max, x| if max > x.abs() { max } else { x.abs() });
    if max < T::NOTHING {
        return None;
    }
    let order = sort(x);
    let prefix = T::prefix(x, weights, &order);
    let mut best = Best { score: f32::MIN, scale: max, cut: [0; 2], shifts: None };
    for first in 0..=GROUP {
        for second in (first..=GROUP).step_by(WINDOW) {
            let sums = T::sums(&prefix, first, second);
            best.improve(&sums, first, second, GROUP);
        }
    }
    let mut shifts = best.shifts?;
    let mut scale = best.scale;
    let mut codes = [0u32; GROUP];
    for (place, i) in order.into_iter().enumerate() {
        codes[i] = u32::from(place >= best.cut[0]) + u32::from(place >= best.cut[1]);
    }
    if scale < 0.0 {
        scale = -scale;
        shifts = SHIFTS - 1 - shifts;
        for code in &mut codes {
            *code = 2 - *code;
        }
    }
    let mut keys = [0; 4];
    let mut moved = false;
    for k in 0..GROUP / 8 {
        for i in 0..8 {
            keys[k] |= codes[8 * k + i] << (2 * i);
        }
        if !lattice.is_point(keys[k]) {
            moved = true;
            keys[k] =
                least(lattice, keys[k], &terms(&x[8 * k..], &weights[8 * k..], scale, levels(T::shift(shifts, k))));
        }
    }
    if moved {
        let (mut products, mut squares) = (0.0, 0.0);
        for i in 0..GROUP {
            let level = levels(T::shift(shifts, i / 8))[(keys[i / 8] >> (2 * (i % 8)) & 3) as usize % 3];
            products += weights[i] * level * x[i];
            squares += weights[i] * level * level;
        }
        if products > 0.0 && squares > 0.0 {
            scale = products / squares;
        }
    }
    let mut points = [0; 4];
    for k in 0..GROUP / 8 {
        points[k] = lattice.number(keys[k]);
    }
    Some(Group { scale, points, shifts })
}

/// Weighted square errors of eight values for each code.
#[inline(always)]
fn terms(x: &[f32], weights: &[f32], scale: f32, levels: &[f32; 3]) -> [[f32; 8]; 8] {
    let mut terms = [[0.0; 8]; 8];
    for i in 0..8 {
        for (term, level) in terms[i].iter_mut().zip(levels) {
            let difference = scale * level - x[i];
            *term = weights[i] * difference * difference;
        }
    }
    terms
}

impl Best {
    /// Takes the cuts that are better, in order.
    #[inline(always)]
    fn improve<const N: usize>(&mut self, sums: &Sums<N>, first: usize, second: usize, group: usize) {
        let mut better = [0u32; WINDOW];
        for (products, squares) in sums.products.iter().zip(&sums.squares) {
            for n in 0..WINDOW {
                let here = (squares[n] > 0.0) & (products[n] * products[n] > self.score * squares[n]);
                better[n] |= u32::from(here);
            }
        }
        if better.iter().fold(0, |all, lane| all | lane) == 0 {
            return;
        }
        for n in 0..WINDOW.min(group + 1 - second) {
            for shifts in 0..N {
                let (product, square) = (sums.products[shifts][n], sums.squares[shifts][n]);
                if square > 0.0 && product * product > self.score * square {
                    self.scale = product / square;
                    self.score = self.scale * product;
                    self.cut = [first, second + n];
                    self.shifts = Some(shifts);
                }
            }
        }
    }
}

/// IQ1_S: the whole group moves one way.
pub(super) struct Whole;

/// Sums of the first values in order, with room for a window.
pub(super) struct WholePrefix {
    x: [f32; 48],
    w: [f32; 48],
}

impl Ternary<32, 2> for Whole {
    const NOTHING: f32 = 1e-12;
    type Prefix = WholePrefix;

    #[inline(always)]
    fn prefix(x: &[f32; 32], weights: &[f32; 32], order: &[usize; 32]) -> WholePrefix {
        let mut prefix = WholePrefix { x: [0.0; 48], w: [0.0; 48] };
        for (place, i) in order.iter().enumerate() {
            prefix.x[place + 1] = prefix.x[place] + weights[*i] * x[*i];
            prefix.w[place + 1] = prefix.w[place] + weights[*i];
        }
        prefix
    }

    #[inline(always)]
    fn sums(prefix: &WholePrefix, first: usize, second: usize) -> Sums<2> {
        let (mut x, mut w) = ([0.0; WINDOW], [0.0; WINDOW]);
        x.copy_from_slice(&prefix.x[second..second + WINDOW]);
        w.copy_from_slice(&prefix.w[second..second + WINDOW]);
        let mut sums = Sums { products: [[0.0; WINDOW]; 2], squares: [[0.0; WINDOW]; 2] };
        for (shift, [low, middle, high]) in LEVELS.iter().enumerate() {
            let (x0, w0) = (prefix.x[first] * low, prefix.w[first] * low * low);
            for n in 0..WINDOW {
                sums.products[shift][n] = x0 + (x[n] - prefix.x[first]) * middle + (prefix.x[32] - x[n]) * high;
                sums.squares[shift][n] =
                    w0 + (w[n] - prefix.w[first]) * middle * middle + (prefix.w[32] - w[n]) * high * high;
            }
        }
        sums
    }

    #[inline(always)]
    fn shift(shifts: usize, _k: usize) -> usize {
        shifts
    }
}

/// IQ1_M: both halves of a group move on their own; bit 1 of the shifts is that of the first half, bit 0 of the second.
pub(super) struct Halves;

/// Sums of the first values in order that lie in each half, with room for a window.
pub(super) struct HalvesPrefix {
    x: [[f32; 33]; 2],
    w: [[f32; 33]; 2],
}

impl Ternary<16, 4> for Halves {
    const NOTHING: f32 = 1e-7;
    type Prefix = HalvesPrefix;

    #[inline(always)]
    fn prefix(x: &[f32; 16], weights: &[f32; 16], order: &[usize; 16]) -> HalvesPrefix {
        let mut prefix = HalvesPrefix { x: [[0.0; 33]; 2], w: [[0.0; 33]; 2] };
        for (place, i) in order.iter().enumerate() {
            for half in 0..2 {
                let inside = i / 8 == half;
                let (sum_x, sum_w) = (prefix.x[half][place], prefix.w[half][place]);
                prefix.x[half][place + 1] = if inside { sum_x + weights[*i] * x[*i] } else { sum_x };
                prefix.w[half][place + 1] = if inside { sum_w + weights[*i] } else { sum_w };
            }
        }
        prefix
    }

    #[inline(always)]
    fn sums(prefix: &HalvesPrefix, first: usize, second: usize) -> Sums<4> {
        let mut products = [[[0.0; WINDOW]; 2]; 2];
        let mut squares = [[[0.0; WINDOW]; 2]; 2];
        for half in 0..2 {
            let (x, w) = (&prefix.x[half], &prefix.w[half]);
            let (mut x2, mut w2) = ([0.0; WINDOW], [0.0; WINDOW]);
            x2.copy_from_slice(&x[second..second + WINDOW]);
            w2.copy_from_slice(&w[second..second + WINDOW]);
            for (shift, [low, middle, high]) in LEVELS.iter().enumerate() {
                // Levels are one apart, which leaves little of the sums over three parts.
                let (lower, upper) = (low * low - middle * middle, middle * middle - high * high);
                let (x16, w16) = (x[16] * high, w[16] * high * high + w[first] * lower);
                for n in 0..WINDOW {
                    products[half][shift][n] = x16 - (x[first] + x2[n]);
                    squares[half][shift][n] = w16 + w2[n] * upper;
                }
            }
        }
        let mut sums = Sums { products: [[0.0; WINDOW]; 4], squares: [[0.0; WINDOW]; 4] };
        for shifts in 0..4 {
            for n in 0..WINDOW {
                sums.products[shifts][n] = products[0][shifts / 2][n] + products[1][shifts % 2][n];
                sums.squares[shifts][n] = squares[0][shifts / 2][n] + squares[1][shifts % 2][n];
            }
        }
        sums
    }

    #[inline(always)]
    fn shift(shifts: usize, k: usize) -> usize {
        shifts >> (1 - k) & 1
    }
}

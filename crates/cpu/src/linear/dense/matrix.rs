//! Many rows of activations times floats: a panel of weights is made `f32` once and used for all of them.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::{Floats, PANEL, Product, UNIT, edge, scaled};
use crate::isa;
use crate::simd::{Simd, tile_pieces, transpose};

/// Columns of a panel; a multiple of the values in a piece.
const CHUNK: usize = 512;

thread_local! {
    static SCRATCH: RefCell<Option<Box<Panel>>> = const { RefCell::new(None) };
}

/// Panels that a tile of activations meets while it is in the first cache.
pub(super) const TOGETHER: usize = 4;

/// Panels, each two vectors of weight rows: `[column][2][row]`.
#[repr(align(64))]
pub(super) struct Panel([f32; CHUNK * PANEL * TOGETHER]);

/// Runs `work` with this thread's panels.
pub(super) fn with_panel(work: impl FnOnce(&mut Panel)) {
    let mut panel = SCRATCH.take().unwrap_or_else(|| Box::new(Panel([0.0; CHUNK * PANEL * TOGETHER])));
    work(&mut panel);
    SCRATCH.set(Some(panel));
}

pub(super) struct Kernel<'a, T> {
    product: Product<'a>,
    panel: &'a mut Panel,
    /// Room for the scales of a vector of rows.
    scales: *mut f32,
    floats: PhantomData<T>,
}

impl<'a, T> Kernel<'a, T> {
    pub(super) fn new(product: Product<'a>, panel: &'a mut Panel, scales: *mut f32) -> Self {
        Kernel { product, panel, scales, floats: PhantomData }
    }
}

impl<T: Floats> isa::Kernel for Kernel<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (x, rows) = (self.product.x, self.product.rows.clone());
        for group in rows.clone().step_by(TOGETHER * PANEL) {
            let group = group..rows.end.min(group + TOGETHER * PANEL);
            for start in (0..x.columns).step_by(CHUNK) {
                let count = CHUNK.min(x.columns - start);
                let panels = || group.clone().step_by(2 * S::ROWS).enumerate();
                // SAFETY: rows and columns exist; there are as many panels as rows of a group need.
                unsafe {
                    for (panel, first) in panels() {
                        self.unpack::<S>(panel, first, start, count);
                    }
                    for tile in 0..x.tiles() {
                        for (panel, first) in panels() {
                            self.tile::<S>(panel, first, start, count, tile);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Floats> Kernel<'_, T> {
    /// Fills panel `panel` with `2 * S::ROWS` rows.
    ///
    /// # Safety
    /// Rows and columns exist, at most [`CHUNK`] of them.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(&mut self, panel: usize, first: usize, start: usize, count: usize) {
        let (per_piece, stride) = (16 / T::SIZE, self.product.weights.stride);
        for half in 0..2 {
            // SAFETY: the caller's promise; the panel has room for a multiple of pieces.
            unsafe {
                self.product.scales::<S, T>(first + half * S::ROWS, self.scales);
                let at = self.product.at(first + half * S::ROWS, S::ROWS).add(start * T::SIZE);
                let panel = self.panel.0.as_mut_ptr().add(panel * CHUNK * 2 * S::ROWS + half * S::ROWS);
                for k in (0..count).step_by(per_piece) {
                    let left = (count - k).min(per_piece);
                    let words = if left == per_piece {
                        transpose::<S>(tile_pieces::<S>(at.add(k * T::SIZE), stride))
                    } else {
                        let pieces = edge(at.add(k * T::SIZE), stride, left * T::SIZE, S::ROWS);
                        transpose::<S>(tile_pieces::<S>(pieces.as_ptr().cast(), 16))
                    };
                    let per_word = 4 / T::SIZE;
                    for (i, word) in words.into_iter().enumerate() {
                        for index in 0..per_word {
                            let column = k + i * per_word + index;
                            let scales = self.scales.wrapping_add((start + k) / UNIT * 2 * S::ROWS);
                            S::store_float(panel.add(column * 2 * S::ROWS), scaled::<S, T>(word, index, scales));
                        }
                    }
                }
            }
        }
    }

    /// One tile of activations times panel `panel`.
    ///
    /// # Safety
    /// The panel holds `2 * S::ROWS` rows from `first` on, in these columns.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, panel: usize, first: usize, start: usize, count: usize, tile: usize) {
        let (x, y) = (self.product.x, self.product.y);
        let height = x.height;
        let rows = height.min(x.rows - tile * height);
        let width = (2 * S::ROWS).min(y.rows - first);
        let whole = rows == height && width == 2 * S::ROWS;
        let mut local = [[0.0f32; PANEL]; 12];
        // SAFETY: the tile exists in the activations and its results in the output; a tile that is cut at an edge goes
        // through `local`, which has room for the highest.
        unsafe {
            let direct = y.at(tile * height, first);
            if !whole && start > 0 {
                for (m, row) in local.iter_mut().enumerate().take(rows) {
                    direct.add(m * y.rows).copy_to_nonoverlapping(row.as_mut_ptr(), width);
                }
            }
            let arguments = Arguments {
                count,
                weights: self.panel.0.as_ptr().add(panel * CHUNK * 2 * S::ROWS),
                values: x.values.as_ptr().cast::<f32>().add((tile * x.columns + start) * height),
                results: if whole { direct } else { local.as_mut_ptr().cast() },
                stride: if whole { y.rows } else { PANEL },
                new: start == 0,
            };
            multiply::<S>(height, arguments);
            if !whole {
                for (m, row) in local.iter().enumerate().take(rows) {
                    row.as_ptr().copy_to_nonoverlapping(direct.add(m * y.rows), width);
                }
            }
        }
    }
}

/// Where one product of a tile and a panel finds everything.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    /// Columns.
    pub(crate) count: usize,
    pub(crate) weights: *const f32,
    pub(crate) values: *const f32,
    pub(crate) results: *mut f32,
    /// From one row of results to the next.
    pub(crate) stride: usize,
    /// Whether results are set, not added to.
    pub(crate) new: bool,
}

/// # Safety
/// The arguments fit a tile of `height` rows, at most 12.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd>(height: usize, arguments: Arguments) {
    // SAFETY: the caller's promise.
    unsafe {
        match height {
            1 => micro::<S, 1>(arguments),
            2 => micro::<S, 2>(arguments),
            3 => micro::<S, 3>(arguments),
            4 => micro::<S, 4>(arguments),
            5 => micro::<S, 5>(arguments),
            6 => micro::<S, 6>(arguments),
            7 => micro::<S, 7>(arguments),
            8 => micro::<S, 8>(arguments),
            9 => micro::<S, 9>(arguments),
            10 => micro::<S, 10>(arguments),
            11 => micro::<S, 11>(arguments),
            _ => micro::<S, 12>(arguments),
        }
    }
}

/// # Safety
/// As for `multiply`.
#[inline(always)]
unsafe fn micro<S: Simd, const M: usize>(arguments: Arguments) {
    if M <= S::FLOAT_TILE {
        // SAFETY: the caller's promise.
        unsafe { S::call(Micro::<M>(arguments)) }
    }
}

/// `M` rows of activations times two vectors of weight rows.
struct Micro<const M: usize>(Arguments);

impl<const M: usize> isa::Kernel for Micro<M> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.0;
        // SAFETY: the arguments fit the tile.
        unsafe {
            let mut totals = [[S::zero(); 2]; M];
            if !a.new {
                for (m, totals) in totals.iter_mut().enumerate() {
                    for (n, total) in totals.iter_mut().enumerate() {
                        *total = S::load_float(a.results.add(m * a.stride + n * S::ROWS));
                    }
                }
            }
            let (mut weights, mut values) = (a.weights, a.values);
            for _ in 0..a.count {
                let w = [S::load_float(weights), S::load_float(weights.add(S::ROWS))];
                for (m, totals) in totals.iter_mut().enumerate() {
                    let x = S::splat(*values.add(m));
                    totals[0] = S::fma(w[0], x, totals[0]);
                    totals[1] = S::fma(w[1], x, totals[1]);
                }
                weights = weights.add(2 * S::ROWS);
                values = values.add(M);
            }
            for (m, totals) in totals.iter().enumerate() {
                for (n, total) in totals.iter().enumerate() {
                    S::store_float(a.results.add(m * a.stride + n * S::ROWS), *total);
                }
            }
        }
    }
}

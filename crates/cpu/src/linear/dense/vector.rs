//! A few rows of activations times floats.

use std::marker::PhantomData;

use super::{Floats, Product, UNIT, edge, scaled};
use crate::isa;
use crate::linear::ahead::Ahead;
use crate::simd::{Simd, tile_pieces, transpose};

pub(super) struct Kernel<'a, T> {
    product: Product<'a>,
    /// Room for the scales of two vectors of rows.
    scales: *mut f32,
    floats: PhantomData<T>,
}

impl<'a, T> Kernel<'a, T> {
    pub(super) fn new(product: Product<'a>, scales: *mut f32) -> Self {
        Kernel { product, scales, floats: PhantomData }
    }
}

impl<T: Floats> isa::Kernel for Kernel<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = &self.product.rows;
        // Ranges are whole panels, and so pairs of tiles.
        for first in rows.clone().step_by(2 * S::ROWS) {
            let (at, ahead) = (self.product.at(first, 2 * S::ROWS), self.product.after(first, 2 * S::ROWS));
            let count = self.product.x.rows;
            let mut m = 0;
            // SAFETY: these rows of activations exist; the tiles lie in the weights.
            unsafe {
                self.product.scales::<S, T>(first, self.scales);
                self.product.scales::<S, T>(first + S::ROWS, self.scales.wrapping_add(S::ROWS));
                while m + 4 <= count {
                    self.tiles::<S, 4>(at, ahead, first, m);
                    m += 4;
                }
                if m + 2 <= count {
                    self.tiles::<S, 2>(at, ahead, first, m);
                    m += 2;
                }
                if m < count {
                    self.tiles::<S, 1>(at, ahead, first, m);
                }
            }
        }
    }
}

impl<T: Floats> Kernel<'_, T> {
    /// Results of two tiles of weights from `at` on for `M` rows of activations from `m` on. One tile alone would wait for
    /// its own sums.
    ///
    /// # Safety
    /// `M` rows of activations exist from `m` on; the tiles' rows are readable.
    #[inline(always)]
    unsafe fn tiles<S: Simd, const M: usize>(&self, at: *const u8, ahead: *const u8, first: usize, m: usize) {
        let (x, stride) = (self.product.x, self.product.weights.stride);
        let per_piece = 16 / T::SIZE;
        let whole = x.columns / per_piece * per_piece;
        // SAFETY: the caller's promise.
        unsafe {
            let values = x.values.as_ptr().cast::<f32>().add(m * x.columns);
            let tiles = [at, at.add(S::ROWS * stride)];
            let mut totals = [[S::zero(); M]; 2];
            let mut ahead = Ahead::new(ahead, 2 * S::ROWS * stride, (whole / per_piece).max(1));
            for k in (0..whole).step_by(per_piece) {
                ahead.step::<S>();
                for (n, totals) in totals.iter_mut().enumerate() {
                    let words = transpose::<S>(tile_pieces::<S>(tiles[n].add(k * T::SIZE), stride));
                    let scales = self.scales.wrapping_add((k / UNIT * 2 + n) * S::ROWS);
                    add::<S, T, M>(totals, words, scales, values.add(k), x.columns);
                }
            }
            let left = x.columns - whole;
            if left > 0 {
                let mut padded = [[0.0f32; 8]; M];
                for (i, row) in padded.iter_mut().enumerate() {
                    values.add(i * x.columns + whole).copy_to_nonoverlapping(row.as_mut_ptr(), left);
                }
                for (totals, tile) in totals.iter_mut().zip(tiles) {
                    let pieces = edge(tile.add(whole * T::SIZE), stride, left * T::SIZE, S::ROWS);
                    let words = transpose::<S>(tile_pieces::<S>(pieces.as_ptr().cast(), 16));
                    add::<S, T, M>(totals, words, self.scales, padded.as_ptr().cast(), 8);
                }
            }
            for (tile, totals) in totals.iter().enumerate() {
                for (i, total) in totals.iter().enumerate() {
                    self.product.y.store::<S>(m + i, first + tile * S::ROWS, *total);
                }
            }
        }
    }
}

/// Adds the products of one piece of each row.
///
/// # Safety
/// `M` rows, `columns` apart, have as many values at `x` as a piece. Where values have scales, theirs are at `scales`.
#[inline(always)]
unsafe fn add<S: Simd, T: Floats, const M: usize>(
    totals: &mut [S::F; M],
    words: [S::I; 4],
    scales: *const f32,
    x: *const f32,
    columns: usize,
) {
    let per_word = 4 / T::SIZE;
    // SAFETY: the caller's promise.
    unsafe {
        for (i, word) in words.into_iter().enumerate() {
            for index in 0..per_word {
                let weight = scaled::<S, T>(word, index, scales);
                for (m, total) in totals.iter_mut().enumerate() {
                    *total = S::fma(weight, S::splat(*x.add(m * columns + i * per_word + index)), *total);
                }
            }
        }
    }
}

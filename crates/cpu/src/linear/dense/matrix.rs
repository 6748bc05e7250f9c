//! Many rows of activations times floats: panels of weights are made `f32` and used for all rows.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Contiguous, Floats, MOST_UNITS, UNIT, edge, scaled};
use crate::gemm::{CHUNK, PANEL, Right};
use crate::isa::{self, Level, dispatch};
use crate::linear::{Rows, apart};
use crate::simd::{Simd, tile_pieces, transpose};

/// The transpose of weights: a column for each of their rows, the first of which is number `base`.
pub(super) struct Across<'a, T> {
    weights: &'a Rows<'a>,
    base: usize,
    floats: PhantomData<fn() -> T>,
}

/// Weights as they stand.
pub(super) struct Along<'a, T> {
    weights: &'a Rows<'a>,
    columns: usize,
    floats: PhantomData<fn() -> T>,
}

impl<'a, T> Across<'a, T> {
    pub(super) fn new(weights: &'a Rows<'a>, base: usize) -> Self {
        Across { weights, base, floats: PhantomData }
    }
}

impl<'a, T> Along<'a, T> {
    pub(super) fn new(weights: &'a Rows<'a>, columns: usize) -> Self {
        Along { weights, columns, floats: PhantomData }
    }
}

/// What is filled of a right matrix.
struct Fill<'a, R> {
    right: &'a R,
    rows: Range<usize>,
    columns: Range<usize>,
    panels: *mut f32,
}

impl<T: Floats> Right for Across<'_, T> {
    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32) {
        // SAFETY: the trait's promise.
        unsafe { dispatch(level, Fill { right: self, rows, columns, panels }) }
    }
}

impl<T: Contiguous> Right for Along<'_, T> {
    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32) {
        // SAFETY: the trait's promise.
        unsafe { dispatch(level, Fill { right: self, rows, columns, panels }) }
    }
}

impl<T: Floats> isa::Kernel for Fill<'_, Across<'_, T>> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Fill { right, rows, columns, panels } = self;
        let width = 2 * S::ROWS;
        for (at, first) in columns.step_by(width).enumerate() {
            for half in 0..2 {
                // SAFETY: the trait's promise; weights go on to a whole panel.
                unsafe {
                    let out = panels.add(at * CHUNK * width + half * S::ROWS);
                    right.vector::<S>(first - right.base + half * S::ROWS, &rows, out);
                }
            }
        }
    }
}

impl<T: Floats> Across<'_, T> {
    /// Columns `inner` of a vector of weight rows.
    ///
    /// # Safety
    /// Rows and columns exist; there is room for a panel.
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, first: usize, inner: &Range<usize>, out: *mut f32) {
        let (per_piece, per_word, stride) = (16 / T::SIZE, 4 / T::SIZE, self.weights.stride);
        let mut scales = [0.0f32; MOST_UNITS * PANEL];
        // SAFETY: the caller's promise; the panel has room for a multiple of pieces.
        unsafe {
            if let (true, Some(apart)) = (T::SCALED, &self.weights.apart) {
                let scales = scales.as_mut_ptr();
                S::call(apart::Fill { apart, first, columns: inner, unit: UNIT, scales, mins: scales });
            }
            let at = self.weights.at(first, S::ROWS).add(inner.start * T::SIZE);
            for k in (0..inner.len()).step_by(per_piece) {
                let left = (inner.len() - k).min(per_piece);
                let words = if left == per_piece {
                    transpose::<S>(tile_pieces::<S>(at.add(k * T::SIZE), stride))
                } else {
                    let pieces = edge(at.add(k * T::SIZE), stride, left * T::SIZE, S::ROWS);
                    transpose::<S>(tile_pieces::<S>(pieces.as_ptr().cast(), 16))
                };
                let scales = scales.as_ptr().wrapping_add(k / UNIT * 2 * S::ROWS);
                for (i, word) in words.into_iter().enumerate() {
                    for index in 0..per_word {
                        let column = k + i * per_word + index;
                        S::store_float(out.add(column * 2 * S::ROWS), scaled::<S, T>(word, index, scales));
                    }
                }
            }
        }
    }
}

impl<T: Contiguous> isa::Kernel for Fill<'_, Along<'_, T>> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Fill { right, rows, columns, panels } = self;
        let (width, stride) = (2 * S::ROWS, right.weights.stride);
        for (k, row) in rows.enumerate() {
            let at = right.weights.at(row, 1);
            for (panel, first) in columns.clone().step_by(width).enumerate() {
                // SAFETY: the trait's promise; values of a vector that is cut are copied first.
                unsafe {
                    let out = panels.add((panel * CHUNK + k) * width);
                    let from = at.add(first * T::SIZE);
                    if first + width <= right.columns {
                        S::prefetch(from.wrapping_add(8 * stride));
                        S::store_float(out, T::load::<S>(from));
                        S::store_float(out.add(S::ROWS), T::load::<S>(from.add(S::ROWS * T::SIZE)));
                    } else {
                        let mut last = [0u8; PANEL * 4];
                        from.copy_to_nonoverlapping(last.as_mut_ptr(), (right.columns - first) * T::SIZE);
                        S::store_float(out, T::load::<S>(last.as_ptr()));
                        S::store_float(out.add(S::ROWS), T::load::<S>(last.as_ptr().add(S::ROWS * T::SIZE)));
                    }
                }
            }
        }
    }
}

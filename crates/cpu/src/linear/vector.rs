//! A few rows of activations: weights are read once, as they lie, and used while they are in registers.

use std::marker::PhantomData;
use std::ops::Range;

use windlass_runtime::scheduler::Session;

use super::activations::{Activations, Form, SUMMED};
use super::ahead::Ahead;
use super::codes::{Codes, Sink};
use super::{Output, PANEL, Rows};
use crate::isa::{Kernel, dispatch};
use crate::simd::{Simd, sum_pieces};

pub(super) fn apply<C: Codes>(weights: &Rows<'_>, x: &Activations, y: &Output, session: &Session<'_>) {
    session.spread(y.rows, PANEL, &|rows, next| {
        // SAFETY: the level is this machine's; sizes were checked; ranges of rows are disjoint.
        unsafe { dispatch(x.level, Product::<C> { weights, x, y, rows, next, codes: PhantomData }) }
    });
}

struct Product<'a, C> {
    weights: &'a Rows<'a>,
    x: &'a Activations,
    y: &'a Output,
    rows: Range<usize>,
    /// The row that this thread is likely to go on with.
    next: usize,
    codes: PhantomData<C>,
}

impl<C: Codes> Kernel for Product<'_, C> {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut first = self.rows.start;
        while first < self.rows.end {
            let next = first + S::ROWS;
            let at = self.weights.at(first, S::ROWS);
            let ahead = if next < self.rows.end { next } else { self.next };
            let ahead = if ahead < self.y.rows { self.weights.at(ahead, S::ROWS) } else { at };
            let tile = Tile { at, ahead, stride: self.weights.stride, first };
            let mut m = 0;
            // SAFETY: rows of activations exist; the tile lies in the weights; promises of `apply`.
            unsafe {
                while m + 4 <= self.x.rows {
                    self.tile::<S, 4>(&tile, m);
                    m += 4;
                }
                if m + 2 <= self.x.rows {
                    self.tile::<S, 2>(&tile, m);
                    m += 2;
                }
                if m < self.x.rows {
                    self.tile::<S, 1>(&tile, m);
                }
            }
            first = next;
        }
    }
}

/// Rows of weights, one per element of a vector.
struct Tile {
    at: *const u8,
    /// The tile that comes next.
    ahead: *const u8,
    stride: usize,
    /// Number of its first row.
    first: usize,
}

impl<C: Codes> Product<'_, C> {
    /// # Safety
    /// `M` rows of activations exist from `m` on; the tile's rows are readable.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize>(&self, tile: &Tile, m: usize) {
        // SAFETY: the caller's promise; blocks lie in rows.
        unsafe {
            let columns = self.x.columns;
            let mut dots = Dots::<S, C, M> {
                values: self.x.values.as_ptr().cast::<u8>().add(m * columns),
                scales: self.x.scales.as_ptr().add(m * (columns / C::FORM.group())),
                sums: self.x.sums.as_ptr().add(m * (columns / SUMMED)),
                columns,
                totals: [S::zero(); M],
                block: [S::zero(); M],
                codes: PhantomData,
            };
            let (mut at, blocks) = (tile.at, columns / C::BLOCK);
            let mut ahead = Ahead::new(tile.ahead, S::ROWS * tile.stride, blocks);
            for _ in 0..blocks {
                ahead.step::<S>();
                C::unpack::<S>(at, tile.stride, &mut dots);
                dots.next();
                at = at.add(C::BYTES);
            }
            for (i, total) in dots.totals.iter().enumerate() {
                self.y.store::<S>(m + i, tile.first, *total);
            }
        }
    }
}

/// Sums of products for `M` rows of activations.
struct Dots<S: Simd, C, const M: usize> {
    /// Codes of the block at hand in the first row; likewise scales and sums.
    values: *const u8,
    scales: *const f32,
    sums: *const i32,
    columns: usize,
    totals: [S::F; M],
    /// Of the super-block, before its scale of activations.
    block: [S::F; M],
    codes: PhantomData<C>,
}

impl<S: Simd, C: Codes, const M: usize> Dots<S, C, M> {
    /// The block is done.
    ///
    /// # Safety
    /// As for `take`.
    #[inline(always)]
    unsafe fn next(&mut self) {
        // SAFETY: pointers advance by a block, at most to the end of their row.
        unsafe {
            if let Form::Bytes256 = C::FORM {
                for m in 0..M {
                    let scale = S::splat(*self.scales.add(m * (self.columns / C::FORM.group())));
                    self.totals[m] = S::fma(self.block[m], scale, self.totals[m]);
                    self.block[m] = S::zero();
                }
            }
            self.values = self.values.add(C::BLOCK);
            self.scales = self.scales.add(C::BLOCK / C::FORM.group());
            self.sums = self.sums.add(C::BLOCK / SUMMED);
        }
    }
}

impl<S: Simd, C: Codes, const M: usize> Sink<S> for Dots<S, C, M> {
    #[inline(always)]
    unsafe fn take<const N: usize>(&mut self, group: usize, codes: [[S::I; 4]; N], scale: S::F, min: S::F) {
        // SAFETY: the group lies in the block at hand, whose activations exist for `M` rows.
        unsafe {
            for m in 0..M {
                let values = self.values.add(m * self.columns + group * C::GROUP);
                let mut dots = [S::splat32(0); 4];
                for (n, codes) in codes.iter().enumerate() {
                    let x = S::same_piece(values.add(n * 16));
                    for j in 0..4 {
                        dots[j] = dot::<S, C>(dots[j], codes[j], x);
                    }
                }
                let sums = self.sums.add(m * (self.columns / SUMMED) + group * N);
                let sum = (0..N).map(|n| *sums.add(n)).sum::<i32>();
                let mut total = sum_pieces::<S>(dots);
                if C::OFFSET != 0 {
                    total = S::add32(total, S::splat32(-C::OFFSET * sum));
                }
                if let Form::Bytes256 = C::FORM {
                    self.block[m] = S::fma(S::to_float(total), scale, self.block[m]);
                    if C::MINS {
                        self.block[m] = S::fma(min, S::splat(sum as f32), self.block[m]);
                    }
                } else {
                    let unit =
                        *self.scales.add(m * (self.columns / C::FORM.group()) + group * C::GROUP / C::FORM.group());
                    let scale = S::mul(scale, S::splat(unit));
                    self.totals[m] = S::fma(S::to_float(total), scale, self.totals[m]);
                    if C::MINS {
                        self.totals[m] = S::fma(min, S::splat(unit * sum as f32), self.totals[m]);
                    }
                }
            }
        }
    }
}

/// Adds products of codes with activations.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn dot<S: Simd, C: Codes>(sums: S::I, codes: S::I, x: S::I) -> S::I {
    // SAFETY: the caller's promise; codes are at most 127 where the scheme says so.
    unsafe { if C::WIDE { S::dot::<true>(sums, codes, x) } else { S::dot::<false>(sums, codes, x) } }
}

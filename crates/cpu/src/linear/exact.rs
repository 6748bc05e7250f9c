//! Products of floats with weights of a scheme: codes become the floats that decoding gives, in the panels that
//! [`gemm`](crate::gemm) works on.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use windlass_runtime::scheduler::Session;

use super::Rows;
use super::apart::Fill;
use super::codes::{Codes, Sink};
use crate::gemm::{CHUNK, PANEL, Right, Tiles, multiply, panel_width};
use crate::isa::{self, Level, dispatch};
use crate::simd::{Simd, transpose};
use crate::span::Span;

/// Scales of a chunk of columns, for a vector of rows: groups have 16 columns or more.
type Scales = MaybeUninit<[f32; CHUNK / 16 * PANEL]>;

/// `y` becomes `x` times the transpose of the weights, of which there are `rows`.
pub(super) fn forward<C: Codes>(weights: &Rows<'_>, x: Tiles, rows: usize, y: &Span<f32>, session: &Session<'_>) {
    multiply(x, 0..x.inner, &Across::<C> { weights, codes: PhantomData }, rows, y, false, session);
}

/// The weights as they stand.
pub(super) fn standing<'a, C: Codes>(weights: &'a Rows<'a>) -> Box<dyn Right + 'a> {
    Box::new(Along::<C> { weights, codes: PhantomData })
}

/// The transpose of weights.
struct Across<'a, C> {
    weights: &'a Rows<'a>,
    codes: PhantomData<fn() -> C>,
}

/// Weights as they stand.
struct Along<'a, C> {
    weights: &'a Rows<'a>,
    codes: PhantomData<fn() -> C>,
}

impl<C: Codes> Right for Across<'_, C> {
    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32) {
        let width = panel_width(level);
        for (at, first) in columns.step_by(width).enumerate() {
            for half in [0, width / 2] {
                let (first, columns) = (first + half, rows.clone());
                let out = panels.wrapping_add(at * CHUNK * width + half);
                let unpack = Unpack::<C, Transposed> { weights: self.weights, first, columns, out, way: PhantomData };
                // SAFETY: the trait's promise; weights go on to a whole panel.
                unsafe { dispatch(level, unpack) };
            }
        }
    }
}

impl<C: Codes> Right for Along<'_, C> {
    fn together(&self) -> usize {
        C::BLOCK.next_multiple_of(PANEL)
    }

    unsafe fn fill(&self, level: Level, rows: Range<usize>, columns: Range<usize>, panels: *mut f32) {
        let width = panel_width(level);
        for first in rows.clone().step_by(width / 2) {
            let out = panels.wrapping_add((first - rows.start) * width);
            let columns = columns.clone();
            let unpack = Unpack::<C, Standing> { weights: self.weights, first, columns, out, way: PhantomData };
            // SAFETY: the trait's promise; weights and panels go on to a whole vector of rows.
            unsafe { dispatch(level, unpack) };
        }
    }
}

/// Which way values of a vector of rows are written.
trait Way {
    /// Writes the pieces of a group from column `column` of those that are unpacked on.
    ///
    /// # Safety
    /// There is room at `out`; the processor has the instructions of `S`.
    unsafe fn write<S: Simd, C: Codes, const N: usize>(
        out: *mut f32,
        column: usize,
        codes: [[S::I; 4]; N],
        scale: S::F,
        min: S::F,
    );
}

/// `[column][row]`.
struct Transposed;
/// `[panel][row][column]`.
struct Standing;

impl Way for Transposed {
    #[inline(always)]
    unsafe fn write<S: Simd, C: Codes, const N: usize>(
        out: *mut f32,
        column: usize,
        codes: [[S::I; 4]; N],
        scale: S::F,
        min: S::F,
    ) {
        for (i, piece) in codes.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                for (j, word) in transpose::<S>(piece).into_iter().enumerate() {
                    for byte in 0..4 {
                        let code = S::and(S::shr32(word, 8 * byte as u32), S::splat32(255));
                        let at = out.add((column + 16 * i + 4 * j + byte) * 2 * S::ROWS);
                        S::store_float(at, value::<S, C>(code, scale, min));
                    }
                }
            }
        }
    }
}

impl Way for Standing {
    #[inline(always)]
    unsafe fn write<S: Simd, C: Codes, const N: usize>(
        out: *mut f32,
        column: usize,
        codes: [[S::I; 4]; N],
        scale: S::F,
        min: S::F,
    ) {
        let (width, mut scales, mut mins) = (2 * S::ROWS, [0.0f32; 16], [0.0f32; 16]);
        // SAFETY: the caller's promise; buffers have room for the widest vector.
        unsafe {
            S::store_float(scales.as_mut_ptr(), scale);
            if C::MINS {
                S::store_float(mins.as_mut_ptr(), min);
            }
            for (i, piece) in codes.into_iter().enumerate() {
                let mut bytes = [[0u8; 64]; 4];
                for (j, bytes) in bytes.iter_mut().enumerate() {
                    S::store(bytes.as_mut_ptr(), piece[j]);
                }
                // Lane `l` of vector `j` is a piece of row `4 l + j`.
                for row in 0..S::ROWS {
                    let piece = &bytes[row % 4][row / 4 * 16..][..16];
                    let (scale, min) = (S::splat(scales[row]), S::splat(mins[row]));
                    for part in 0..16 / S::ROWS {
                        let column = column + 16 * i + part * S::ROWS;
                        let code = S::bytes(piece.as_ptr().add(part * S::ROWS));
                        let at = out.add((column / width * CHUNK + row) * width + column % width);
                        S::store_float(at, value::<S, C>(code, scale, min));
                    }
                }
            }
        }
    }
}

/// What a code means.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn value<S: Simd, C: Codes>(code: S::I, scale: S::F, min: S::F) -> S::F {
    // SAFETY: the caller's promise; codes that name values are less than 16.
    unsafe {
        if let Some(values) = C::VALUES {
            return S::mul(S::pick(values(), code), scale);
        }
        let code = S::to_float(if C::OFFSET == 0 { code } else { S::add32(code, S::splat32(-C::OFFSET)) });
        if C::MINS { S::fma(code, scale, min) } else { S::mul(code, scale) }
    }
}

/// Some columns of a vector of rows.
struct Unpack<'a, C, W> {
    weights: &'a Rows<'a>,
    first: usize,
    /// Whole blocks, at most [`CHUNK`] columns.
    columns: Range<usize>,
    out: *mut f32,
    way: PhantomData<(C, W)>,
}

impl<C: Codes, W: Way> isa::Kernel for Unpack<'_, C, W> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Unpack { weights, first, columns, out, .. } = self;
        let (mut scales, mut mins) = (Scales::uninit(), Scales::uninit());
        let (scales, mins) = (scales.as_mut_ptr().cast::<f32>(), mins.as_mut_ptr().cast::<f32>());
        // SAFETY: rows and columns exist, which are whole blocks; there is room for their values.
        unsafe {
            if let (true, Some(apart)) = (C::APART, &weights.apart) {
                S::call(Fill { apart, first, columns: &columns, unit: C::GROUP, scales, mins });
            }
            let mut sink = Write::<S, C, W> { out, column: 0, scales, mins, way: PhantomData };
            let mut at = weights.at(first, S::ROWS).add(columns.start / C::BLOCK * C::BYTES);
            for _ in 0..columns.len() / C::BLOCK {
                C::unpack::<S>(at, weights.stride, &mut sink);
                at = at.add(C::BYTES);
            }
        }
    }
}

/// Takes groups one behind another.
struct Write<S, C, W> {
    out: *mut f32,
    column: usize,
    /// Where scales and minima are apart: `[group][2][row]`.
    scales: *const f32,
    mins: *const f32,
    way: PhantomData<(S, C, W)>,
}

impl<S: Simd, C: Codes, W: Way> Sink<S> for Write<S, C, W> {
    #[inline(always)]
    unsafe fn take<const N: usize>(&mut self, _group: usize, codes: [[S::I; 4]; N], scale: S::F, min: S::F) {
        // SAFETY: scales of all groups were filled in where they are apart, and minima where there are some.
        unsafe {
            let at = self.column / C::GROUP * 2 * S::ROWS;
            let scale = if C::APART { S::load_float(self.scales.add(at)) } else { scale };
            let min = if C::APART && C::MINS { S::load_float(self.mins.add(at)) } else { min };
            W::write::<S, C, N>(self.out, self.column, codes, scale, min);
            self.column += 16 * N;
        }
    }
}

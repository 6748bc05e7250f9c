//! Scales and minima that lie in planes of their own, beside the codes.
//!
//! A panel of codes is multiplied by floats `[group][2][row]`; these are gathered here, for a vector of rows at a time.

use std::ops::Range;
use std::sync::LazyLock;

use super::dense::{Bf16, F16, F32, Floats, edge};
use crate::isa::Kernel;
use crate::simd::{Simd, tile_pieces, transpose};

/// The scales of a matrix.
pub(super) struct Apart<'a> {
    pub scales: Numbers<'a>,
    /// What scales are multiplied by.
    pub factor: f32,
    /// Scales are themselves codes: what each 256 of the matrix are multiplied by (F32), and what is added then.
    pub nested: Option<(&'a [u8], f32)>,
    pub mins: Option<(Numbers<'a>, Min)>,
    /// Rows of the matrix.
    pub rows: usize,
    /// Rows that share scales: one, or a multiple of the rows of a vector.
    pub band: usize,
    /// Columns that share a scale.
    pub group: usize,
    /// Scales of a row.
    pub per_row: usize,
}

/// A plane with a number per group.
pub(super) struct Numbers<'a> {
    pub kind: Kind,
    pub bytes: &'a [u8],
}

/// Types of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    /// Whole numbers in a byte.
    U8,
    /// Floats of eight bits, whose code of not-a-number counts as 480.
    E4m3,
    /// Powers of two; the least counts as zero.
    E8m0,
    /// The dynamic map of bitsandbytes.
    Dynamic,
}

/// What the second plane says of the smallest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Min {
    /// It is added.
    Plus,
    /// It is taken off.
    Minus,
    /// It is the code that means zero.
    Zero,
}

/// Whole numbers in a byte.
struct U8;
/// Floats of eight bits.
struct E4m3;
/// Powers of two.
struct E8m0;
/// Numbers of a table of 256 floats.
struct Dynamic;

/// Writes scales and minima of `S::ROWS` rows from `first` on for each `unit` of `columns`: floats of one group stand
/// `2 * S::ROWS` apart. `unit` divides the groups and both ends of the columns; there is room for all units.
#[derive(Clone)]
pub(super) struct Fill<'a> {
    pub apart: &'a Apart<'a>,
    pub first: usize,
    pub columns: &'a Range<usize>,
    pub unit: usize,
    pub scales: *mut f32,
    pub mins: *mut f32,
}

impl Kernel for Fill<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Fill { apart, first, columns, unit, scales, mins } = self;
        // SAFETY: what this struct says.
        unsafe { apart.fill::<S>(first, columns, unit, scales, mins) }
    }
}

impl Apart<'_> {
    /// # Safety
    /// What [`Fill`] says; the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn fill<S: Simd>(
        &self,
        first: usize,
        columns: &Range<usize>,
        unit: usize,
        scales: *mut f32,
        mins: *mut f32,
    ) {
        let units = columns.len() / unit;
        // SAFETY: the caller's promise.
        unsafe {
            self.read::<S>(&self.scales, first, columns, unit, scales);
            if let Some((nested, offset)) = self.nested {
                let mut factors = [0.0; 16];
                for k in 0..units {
                    let group = (columns.start + k * unit) / self.group;
                    for (row, factor) in factors.iter_mut().enumerate().take(S::ROWS) {
                        let index = ((first + row) * self.per_row + group) / 256;
                        *factor = nested.as_chunks::<4>().0.get(index).map_or(0.0, |b| f32::from_le_bytes(*b));
                    }
                    let at = scales.add(k * 2 * S::ROWS);
                    let scale = S::fma(S::load_float(at), S::load_float(factors.as_ptr()), S::splat(offset));
                    S::store_float(at, scale);
                }
            }
            if self.factor != 1.0 {
                for k in 0..units {
                    let at = scales.add(k * 2 * S::ROWS);
                    S::store_float(at, S::mul(S::load_float(at), S::splat(self.factor)));
                }
            }
            let Some((numbers, min)) = &self.mins else { return };
            self.read::<S>(numbers, first, columns, unit, mins);
            if *min == Min::Plus {
                return;
            }
            for k in 0..units {
                let (at, scale) = (mins.add(k * 2 * S::ROWS), scales.add(k * 2 * S::ROWS));
                let negative = S::mul(S::load_float(at), S::splat(-1.0));
                let value = if *min == Min::Zero { S::mul(negative, S::load_float(scale)) } else { negative };
                S::store_float(at, value);
            }
        }
    }

    /// # Safety
    /// As for [`Apart::fill`].
    #[inline(always)]
    unsafe fn read<S: Simd>(
        &self,
        numbers: &Numbers<'_>,
        first: usize,
        columns: &Range<usize>,
        unit: usize,
        out: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match numbers.kind {
                Kind::F32 => self.typed::<S, F32>(numbers.bytes, first, columns, unit, out),
                Kind::F16 => self.typed::<S, F16>(numbers.bytes, first, columns, unit, out),
                Kind::Bf16 => self.typed::<S, Bf16>(numbers.bytes, first, columns, unit, out),
                Kind::U8 => self.typed::<S, U8>(numbers.bytes, first, columns, unit, out),
                Kind::E4m3 => self.typed::<S, E4m3>(numbers.bytes, first, columns, unit, out),
                Kind::E8m0 => self.typed::<S, E8m0>(numbers.bytes, first, columns, unit, out),
                Kind::Dynamic => self.typed::<S, Dynamic>(numbers.bytes, first, columns, unit, out),
            }
        }
    }

    /// # Safety
    /// As for [`Apart::fill`].
    #[inline(always)]
    unsafe fn typed<S: Simd, T: Floats>(
        &self,
        bytes: &[u8],
        first: usize,
        columns: &Range<usize>,
        unit: usize,
        out: *mut f32,
    ) {
        let (per_piece, per_word) = (16 / T::SIZE, 4 / T::SIZE);
        let groups = columns.start / self.group..columns.end.div_ceil(self.group);
        let (row, stride) = (first / self.band, if self.band == 1 { self.per_row * T::SIZE } else { 0 });
        let rows = S::ROWS.min(self.rows.saturating_sub(first));
        for start in groups.clone().step_by(per_piece) {
            let count = per_piece.min(groups.end - start);
            let offset = (row * self.per_row + start) * T::SIZE;
            // SAFETY: whole pieces are read where the plane goes on that far; else the numbers that are there.
            let words = unsafe {
                let at = bytes.as_ptr().wrapping_add(offset);
                if offset + (S::ROWS - 1) * stride + 16 <= bytes.len() {
                    transpose::<S>(tile_pieces::<S>(at, stride))
                } else {
                    let pieces = edge(at, stride, count * T::SIZE, rows);
                    transpose::<S>(tile_pieces::<S>(pieces.as_ptr().cast(), 16))
                }
            };
            let mut values = [[0.0f32; 16]; 16];
            for (i, values) in values.iter_mut().enumerate().take(per_piece) {
                // SAFETY: there is room for the widest vector.
                unsafe { S::store_float(values.as_mut_ptr(), T::value::<S>(words[i / per_word], i % per_word)) };
            }
            for (i, values) in values.iter().enumerate().take(count) {
                let from = ((start + i) * self.group).max(columns.start) - columns.start;
                let to = ((start + i + 1) * self.group).min(columns.end) - columns.start;
                // SAFETY: the caller has room for all units of the columns; units are powers of two.
                unsafe {
                    let value = S::load_float(values.as_ptr());
                    for k in from >> unit.trailing_zeros()..to >> unit.trailing_zeros() {
                        S::store_float(out.add(k * 2 * S::ROWS), value);
                    }
                }
            }
        }
    }
}

/// Byte `index` of 32-bit elements.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn byte<S: Simd>(word: S::I, index: usize) -> S::I {
    // SAFETY: the caller's promise.
    unsafe { S::and(S::shr32(word, 8 * index as u32), S::splat32(255)) }
}

impl Floats for U8 {
    const SIZE: usize = 1;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::to_float(byte::<S>(word, index)) }
    }
}

impl Floats for E4m3 {
    const SIZE: usize = 1;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        // SAFETY: the trait's promise. A half has four more exponents on either side.
        unsafe {
            let byte = byte::<S>(word, index);
            let size = S::shl32(S::and(byte, S::splat32(127)), 7);
            let half = S::or(size, S::shl32(S::and(byte, S::splat32(128)), 8));
            S::mul(S::half(half), S::splat(256.0))
        }
    }
}

impl Floats for E8m0 {
    const SIZE: usize = 1;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::as_float(S::shl32(byte::<S>(word, index), 23)) }
    }
}

impl Floats for Dynamic {
    const SIZE: usize = 1;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| windlass_quant::bnb::dynamic_map().map(f32::to_bits));
        // SAFETY: the trait's promise; the table has an element for every byte.
        unsafe { S::as_float(S::gather32(TABLE.as_ptr(), byte::<S>(word, index))) }
    }
}

//! Activations as kernels take them: floats, or bytes with a scale per group, in tiles of rows.

use std::cell::RefCell;
use std::mem::take;

use windlass_runtime::scheduler::Session;

use crate::Error;
use crate::gemm::Tiles;
use crate::isa::{Kernel, Level, dispatch, level};
use crate::math::fold;
use crate::simd::Simd;
use crate::span::Span;

/// In what form weights want their activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Floats,
    /// Bytes with a scale per 16, for weights whose groups are as small.
    Bytes16,
    /// Bytes with a scale per 32: what GGML calls Q8_0, but that the scale stays `f32`.
    Bytes32,
    /// Bytes with a scale per 256, for super-blocks: GGML's Q8_K.
    Bytes256,
}

impl Form {
    /// Columns that share a scale.
    pub(super) const fn group(self) -> usize {
        match self {
            Form::Floats => 1,
            Form::Bytes16 => 16,
            Form::Bytes32 => 32,
            Form::Bytes256 => 256,
        }
    }
}

/// Columns whose codes are summed, for the offsets and minima of weights.
pub(super) const SUMMED: usize = 16;

/// Most rows that are multiplied one by one, with weights read as they lie; more are worth unpacking weights for.
pub(super) const FEW_ROWS: usize = 8;

/// Rows of activations, made ready for any number of [`Linear`](super::Linear) of the same form and columns.
///
/// A row comes out the same whatever its neighbours. A group with a value that is not finite gives not-a-number.
pub struct Activations {
    pub(super) form: Form,
    pub(super) level: Level,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Rows of a tile; the last tile is filled up with anything.
    pub(super) height: usize,
    /// Words of 4 bytes (four codes or one float): `[tile][word][row of the tile]`.
    pub(super) values: Vec<u32>,
    /// `[tile][group][row of the tile]`.
    pub(super) scales: Vec<f32>,
    /// Sums of [`SUMMED`] codes: `[tile][columns / SUMMED][row of the tile]`.
    pub(super) sums: Vec<i32>,
}

impl Activations {
    /// Prepares `rows` rows of `columns` values each. Columns must be a multiple of 16 for [`Form::Bytes16`], of 32 for
    /// [`Form::Bytes32`] and of 256 for [`Form::Bytes256`].
    pub fn new(form: Form, x: &[f32], rows: usize, columns: usize, session: &Session<'_>) -> Result<Self, Error> {
        let size = rows.checked_mul(columns).filter(|n| *n > 0);
        let size = size.ok_or_else(|| Error::Shape(format!("activations of {rows} rows, {columns} columns")))?;
        if x.len() != size {
            return Err(Error::Size { what: "activations", expected: size, found: x.len() });
        }
        if !columns.is_multiple_of(form.group()) {
            let whole = columns.next_multiple_of(form.group());
            return Err(Error::Size { what: "columns of whole groups", expected: whole, found: columns });
        }
        let level = match (form, level()) {
            (Form::Floats, level) => level,
            // Kernels for bytes run on AVX2 there.
            (_, Level::Avx512) => Level::Avx2,
            (_, level) => level,
        };
        let height = tile_height(form, level, rows);
        let tiles = rows.div_ceil(height);
        let (words, groups, sums) = match form {
            Form::Floats => (columns, 0, 0),
            _ => (columns / 4, columns / form.group(), columns / SUMMED),
        };
        let padded = tiles * height;
        let spare = SPARE.take();
        let mut made = Activations {
            form,
            level,
            rows,
            columns,
            height,
            values: spare.values,
            scales: spare.scales,
            sums: spare.sums,
        };
        // What the last tile has too much is computed with and dropped, whatever it is.
        made.values.resize(padded * words, 0);
        made.scales.resize(padded * groups, 0.0);
        made.sums.resize(padded * sums, 0);
        let target = Target {
            values: Span::of(&mut made.values),
            scales: Span::of(&mut made.scales),
            sums: Span::of(&mut made.sums),
            words,
            groups,
            height,
        };
        session.balance(tiles, 8usize.div_ceil(height), &|range| {
            let rows = range.start * height..rows.min(range.end * height);
            // SAFETY: `level` is this machine's; ranges of tiles are disjoint, and `target` has room for all tiles.
            unsafe { dispatch(level, Prepare { form, x, columns, rows, target: &target }) }
        });
        Ok(made)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The form that they were prepared in.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The tiles of activations that are floats.
    pub(super) fn floats(&self) -> Tiles<'_> {
        let values = bytemuck::cast_slice(&self.values);
        Tiles { level: self.level, values, height: self.height, rows: self.rows, inner: self.columns }
    }

    /// Number of tiles.
    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(self.height)
    }
}

/// Room of activations that are dropped, for those that come.
#[derive(Default)]
struct Spare {
    values: Vec<u32>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

impl Drop for Activations {
    fn drop(&mut self) {
        let (values, scales, sums) = (take(&mut self.values), take(&mut self.scales), take(&mut self.sums));
        // A thread that ends has no spare room any more.
        let _ = SPARE.try_with(|spare| spare.replace(Spare { values, scales, sums }));
    }
}

/// Rows are spread evenly over as few tiles as possible, so that little is filled up.
fn tile_height(form: Form, level: Level, rows: usize) -> usize {
    if rows <= FEW_ROWS {
        return 1;
    }
    let most = match (form, level) {
        (Form::Floats, Level::Avx512 | Level::Avx512Vnni) => 12,
        (Form::Floats, Level::Avx2) => 6,
        (_, Level::Avx512 | Level::Avx512Vnni) => 7,
        (_, Level::Avx2) => 3,
        (_, Level::Portable) => 4,
    };
    rows.div_ceil(rows.div_ceil(most))
}

struct Target {
    values: Span<u32>,
    scales: Span<f32>,
    sums: Span<i32>,
    words: usize,
    groups: usize,
    height: usize,
}

/// Prepares some rows.
struct Prepare<'a> {
    form: Form,
    x: &'a [f32],
    columns: usize,
    rows: std::ops::Range<usize>,
    target: &'a Target,
}

impl Kernel for Prepare<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for row in self.rows {
            let x = &self.x[row * self.columns..][..self.columns];
            // SAFETY: tiles of these rows belong to this call alone, and the target has room for them.
            unsafe {
                match self.form {
                    Form::Floats => self.target.floats(row, x),
                    Form::Bytes16 => self.target.bytes::<S, 16>(row, x),
                    Form::Bytes32 => self.target.bytes::<S, 32>(row, x),
                    Form::Bytes256 => self.target.bytes::<S, 256>(row, x),
                }
            }
        }
    }
}

impl Target {
    /// # Safety
    /// The target has room for the row, and nobody else writes it.
    #[inline(always)]
    unsafe fn floats(&self, row: usize, x: &[f32]) {
        let (tile, at) = (row / self.height, row % self.height);
        for (k, v) in x.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *self.values.at((tile * self.words + k) * self.height + at) = v.to_bits() };
        }
    }

    /// # Safety
    /// The target has room for the row, and nobody else writes it.
    #[inline(always)]
    unsafe fn bytes<S: Simd, const G: usize>(&self, row: usize, x: &[f32]) {
        let (tile, at) = (row / self.height, row % self.height);
        for (g, x) in x.as_chunks::<G>().0.iter().enumerate() {
            let group = tile * self.groups + g;
            // SAFETY: the caller's promise; the processor has the instructions of `S`.
            unsafe {
                let largest = largest::<S>(x);
                *self.scales.at(group * self.height + at) = largest / 127.0;
                let inverse = 127.0 / largest;
                // Zeros stay zeros.
                let inverse = if inverse.is_finite() || largest.is_nan() { inverse } else { 0.0 };
                for (i, x) in x.as_chunks::<SUMMED>().0.iter().enumerate() {
                    let part = group * (G / SUMMED) + i;
                    let (words, sum) = quantize::<S>(x, inverse);
                    *self.sums.at(part * self.height + at) = sum;
                    for (i, word) in words.into_iter().enumerate() {
                        *self.values.at((part * (SUMMED / 4) + i) * self.height + at) = word;
                    }
                }
            }
        }
    }
}

/// The largest magnitude of a group; not-a-number if one is.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn largest<S: Simd>(x: &[f32]) -> f32 {
    let mut each = [0i32; SUMMED];
    // SAFETY: groups are whole vectors, and the array has room for the widest; the caller's promise.
    unsafe {
        // Magnitudes compare as integers, and not-a-number is above infinity.
        let (mut high, magnitude) = (S::splat32(0), S::splat32(0x7fff_ffff));
        for part in x.chunks_exact(S::ROWS) {
            high = S::max32(high, S::and(S::as_int(S::load_float(part.as_ptr())), magnitude));
        }
        S::store(each.as_mut_ptr().cast(), high);
    }
    f32::from_bits(fold!(each, a, b => a.max(b)) as u32)
}

/// Codes from -127 to 127, nearest with ties to even, four to a word, and their sum.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn quantize<S: Simd>(x: &[f32; SUMMED], inverse: f32) -> ([u32; SUMMED / 4], i32) {
    // Adding 1.5 * 2^23 leaves the rounded number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let (mut words, mut numbers) = ([0u32; SUMMED / 4], [0i32; SUMMED]);
    // SAFETY: the values are whole vectors, and words and numbers are as many; the caller's promise.
    unsafe {
        let (inverse, round) = (S::splat(inverse), S::splat(ROUND));
        for i in (0..SUMMED).step_by(S::ROWS) {
            let rounded = S::add(S::mul(S::load_float(x.as_ptr().add(i)), inverse), round);
            // Only the low byte counts: what is not a number is code 0.
            let number = S::sar32(S::shl32(S::as_int(rounded), 24), 24);
            S::store(numbers.as_mut_ptr().add(i).cast(), number);
            S::store_bytes(words.as_mut_ptr().cast::<u8>().add(i), number);
        }
    }
    for word in &mut words {
        *word = u32::from_le(*word);
    }
    (words, fold!(numbers, a, b => a + b))
}

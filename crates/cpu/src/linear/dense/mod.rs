//! Weights that are floats, or are decoded to floats.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Mutex;

use windlass_quant::Packing;
use windlass_runtime::scheduler::Session;
use windlass_tensor::{DType, PackedLayout};

use super::activations::Activations;
use super::apart::Fill;
use super::{Output, PANEL, Rows};
use crate::Error;
use crate::gemm::{CHUNK, Right, multiply, multiply_part};
use crate::isa::dispatch;
use crate::simd::Simd;
use crate::span::Span;

mod matrix;
mod vector;

use matrix::{Across, Along};

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static SCALES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with room for the scales of a vector of rows: `[column / UNIT][2][row]`.
fn with_scales(scaled: bool, columns: usize, work: impl FnOnce(*mut f32)) {
    let mut scales = SCALES.take();
    scales.resize(scales.len().max(if scaled { columns / UNIT * PANEL } else { 0 }), 0.0);
    work(scales.as_mut_ptr());
    SCALES.set(scales);
}

/// A float type as kernels read it.
pub(super) trait Floats: 'static {
    /// Bytes of a value.
    const SIZE: usize;
    /// Whether values are multiplied by scales that lie in a plane of their own.
    const SCALED: bool = false;

    /// Value `index` of the `4 / SIZE` values in 32-bit elements.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F;
}

/// A float type whose values are read one after the other, too.
pub(super) trait Contiguous: Floats {
    /// `S::ROWS` values.
    ///
    /// # Safety
    /// They are readable at `at`; the processor has the instructions of `S`.
    unsafe fn load<S: Simd>(at: *const u8) -> S::F;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

impl Contiguous for F32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::load_float(at.cast()) }
    }
}

impl Contiguous for F16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::load_half(at.cast()) }
    }
}

impl Contiguous for Bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const u8) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::load_bf16(at.cast()) }
    }
}

impl Floats for F32 {
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, _index: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::as_float(word) }
    }
}

impl Floats for F16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe { S::half(if index == 0 { word } else { S::shr32(word, 16) }) }
    }
}

impl Floats for Bf16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        // SAFETY: the trait's promise.
        unsafe {
            S::as_float(if index == 0 { S::shl32(word, 16) } else { S::and(word, S::splat32(0xffff_0000_u32 as i32)) })
        }
    }
}

/// Floats of eight bits (E4M3), divided by [`FLOAT8`]. The code of not-a-number counts as 480.
struct Float8;

/// What values of [`Float8`] lack: their scales are multiplied by it.
pub(super) const FLOAT8: f32 = 256.0;

/// Columns whose scale is kept for them: it divides the groups of all schemes.
const UNIT: usize = 32;

/// Units of a chunk of columns.
const MOST_UNITS: usize = CHUNK / UNIT;

impl Floats for Float8 {
    const SIZE: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn value<S: Simd>(word: S::I, index: usize) -> S::F {
        // SAFETY: the trait's promise. The bits of the code become those of a half.
        unsafe {
            let (size, sign) = match index {
                0 => (S::shl32(word, 7), S::shl32(word, 8)),
                1 => (S::shr32(word, 1), word),
                2 => (S::shr32(word, 9), S::shr32(word, 8)),
                _ => (S::shr32(word, 17), S::shr32(word, 16)),
            };
            S::half(S::or(S::and(size, S::splat32(0x3f80)), S::and(sign, S::splat32(0x8000))))
        }
    }
}

/// Floats of eight bits with scales; columns are whole [`UNIT`]s.
pub(super) fn apply_scaled(weights: &Rows<'_>, x: &Activations, y: &Output, session: &Session<'_>) {
    apply_type::<Float8>(weights, x, y, session);
}

/// Weights in one of the float types.
pub(super) fn apply(dtype: DType, weights: &Rows<'_>, x: &Activations, y: &Output, session: &Session<'_>) {
    match dtype {
        DType::F16 => apply_type::<F16>(weights, x, y, session),
        DType::BF16 => apply_type::<Bf16>(weights, x, y, session),
        _ => apply_type::<F32>(weights, x, y, session),
    }
}

fn apply_type<T: Floats>(weights: &Rows<'_>, x: &Activations, y: &Output, session: &Session<'_>) {
    if x.height > 1 {
        return multiply(x.floats(), 0..x.columns, &Across::<T>::new(weights, 0), y.rows, &y.y, false, session);
    }
    session.spread(y.rows, PANEL, &|rows, next| Product { weights, base: 0, x, y, rows, next }.run::<T>());
}

/// `y` grows by `x` times the transpose of F32 weights, of which there are `rows`.
pub(super) fn add(weights: &Rows<'_>, x: &Activations, rows: usize, y: &Span<f32>, session: &Session<'_>) {
    multiply(x.floats(), 0..x.columns, &Across::<F32>::new(weights, 0), rows, y, true, session);
}

/// Floats as they stand.
pub(super) fn standing<'a>(dtype: DType, weights: &'a Rows<'a>, columns: usize) -> Box<dyn Right + 'a> {
    match dtype {
        DType::F16 => Box::new(Along::<F16>::new(weights, columns)),
        DType::BF16 => Box::new(Along::<Bf16>::new(weights, columns)),
        _ => Box::new(Along::<F32>::new(weights, columns)),
    }
}

/// Weights of a scheme that has no kernels of its own.
pub(super) fn apply_decoded(
    packing: &Packing,
    planes: &[&[u8]],
    x: &Activations,
    y: &Output,
    session: &Session<'_>,
) -> Result<(), Error> {
    let together = packing.scheme.row_granularity(x.columns).max(1);
    let grain = (1..=PANEL).map(|n| n * together).find(|n| n % PANEL == 0).unwrap_or(together * PANEL);
    let failure = Mutex::new(None);
    session.balance(y.rows, grain, &|rows| {
        let mut values = SCRATCH.take();
        let padded = rows.len().next_multiple_of(PANEL) * x.columns;
        values.clear();
        values.resize(padded, 0.0);
        match decode(packing, planes, x.columns, &rows, &mut values) {
            Ok(()) => {
                let (weights, base) = (&Rows::of_floats(&values, x.columns), rows.start);
                if x.height > 1 {
                    let right = Across::<F32>::new(weights, base);
                    multiply_part(x.floats(), 0..x.columns, &right, y.rows, rows, &y.y, false);
                } else {
                    Product { weights, base, x, y, next: y.rows, rows }.run::<F32>();
                }
            }
            Err(error) => *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error),
        }
        SCRATCH.set(values);
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

/// Decodes some rows of packed weights to `values`.
pub(crate) fn decode<'a>(
    packing: &Packing,
    planes: &[&'a [u8]],
    columns: usize,
    rows: &Range<usize>,
    values: &mut [f32],
) -> Result<(), Error> {
    let ranges = packing.plane_ranges(columns, rows.start, rows.len()).map_err(Error::Shape)?;
    let cut = |(plane, (start, length)): (&&'a [u8], &(u64, u64))| {
        let (start, length) = (*start as usize, *length as usize);
        let bytes = plane.get(start..).and_then(|rest| rest.get(..length));
        bytes.ok_or(Error::Size { what: "bytes of a plane", expected: start + length, found: plane.len() })
    };
    let planes = planes.iter().zip(&ranges).map(cut).collect::<Result<Vec<_>, Error>>()?;
    Ok(packing.scheme.decode(&planes, columns, packing.float, &mut values[..rows.len() * columns])?)
}

/// Rows of weights times activations.
struct Product<'a> {
    weights: &'a Rows<'a>,
    /// Row of results that the first row of weights gives.
    base: usize,
    x: &'a Activations,
    y: &'a Output,
    rows: Range<usize>,
    /// The row that this thread is likely to go on with; the number of rows where none is known.
    next: usize,
}

impl Product<'_> {
    fn run<T: Floats>(self) {
        let level = self.x.level;
        with_scales(T::SCALED, self.x.columns, |scales| {
            // SAFETY: the level is this machine's; sizes were checked; ranges of rows are disjoint.
            unsafe { dispatch(level, vector::Kernel::<T>::new(self, scales)) }
        });
    }

    /// Writes the scales of a vector of rows.
    ///
    /// # Safety
    /// `scales` has room for those of all columns; the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn scales<S: Simd, T: Floats>(&self, first: usize, scales: *mut f32) {
        if let (true, Some(apart)) = (T::SCALED, &self.weights.apart) {
            let columns = 0..self.x.columns;
            let fill = Fill { apart, first, columns: &columns, unit: UNIT, scales, mins: scales };
            // SAFETY: the caller's promise; there are no minima.
            unsafe { S::call(fill) };
        }
    }

    /// Where `count` rows of weights lie that give results from `first` on.
    #[inline(always)]
    fn at(&self, first: usize, count: usize) -> *const u8 {
        self.weights.at(first - self.base, count)
    }

    /// What is needed after `count` rows from `first` on, as far as is known.
    #[inline(always)]
    fn after(&self, first: usize, count: usize) -> *const u8 {
        if first + count < self.rows.end {
            self.at(first + count, count)
        } else if self.next < self.y.rows {
            self.at(self.next, count)
        } else {
            self.at(first, count)
        }
    }
}

/// Value `index` of those in 32-bit elements, times its scale if there are scales.
///
/// # Safety
/// As for [`Floats::value`]; scales of a vector of rows are readable at `scales` if there are any.
#[inline(always)]
unsafe fn scaled<S: Simd, T: Floats>(word: S::I, index: usize, scales: *const f32) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let value = T::value::<S>(word, index);
        if T::SCALED { S::mul(value, S::load_float(scales)) } else { value }
    }
}

/// The last bytes of each row of a tile, which do not fill a piece, filled up with zeros.
///
/// # Safety
/// `count` bytes, at most 16, are readable at `at` in each of `rows` rows, at most 16.
#[inline(always)]
pub(super) unsafe fn edge(at: *const u8, stride: usize, count: usize, rows: usize) -> [[u8; 16]; 16] {
    let mut pieces = [[0; 16]; 16];
    for (row, piece) in pieces.iter_mut().enumerate().take(rows) {
        // SAFETY: the caller's promise.
        unsafe { at.add(row * stride).copy_to_nonoverlapping(piece.as_mut_ptr(), count) };
    }
    pieces
}

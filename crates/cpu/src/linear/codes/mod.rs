//! Schemes whose codes are multiplied as integers: how their blocks give codes, scales and minima.
//!
//! A scheme is one implementation of [`Codes`] and a line in [`ENTRIES`]. Anything else is decoded to floats.

use windlass_runtime::scheduler::Session;

use super::activations::{Activations, Form};
use super::{Output, Rows, matrix, vector};
use crate::simd::Simd;

mod k;
mod legacy;
mod table;

/// A scheme as kernels read it: blocks, row after row, in one plane.
pub(super) trait Codes: 'static {
    /// Values of a block.
    const BLOCK: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Values that share a scale: 16 or 32.
    const GROUP: usize;
    /// The code that means zero.
    const OFFSET: i32;
    /// Whether a minimum is added: `value = (code - OFFSET) * scale + min`.
    const MINS: bool;
    /// Whether codes may exceed 127.
    const WIDE: bool;
    const FORM: Form;

    /// Gives one block of each row of a tile to `sink`, group by group in order. `at` is the block of the first row,
    /// `stride` the length of a row.
    ///
    /// # Safety
    /// A block is readable at `at` in each of the tile's rows; the processor has the instructions of `S`.
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>);
}

/// What takes codes.
pub(super) trait Sink<S: Simd> {
    /// Group `group` of the block: `N` pieces of 16 codes, scales and minima with a row per element.
    ///
    /// # Safety
    /// The processor has the instructions of `S`; groups come in order, each once.
    unsafe fn take<const N: usize>(&mut self, group: usize, codes: [[S::I; 4]; N], scale: S::F, min: S::F);
}

/// A scheme in the table.
pub(super) struct Entry {
    name: &'static str,
    pub block: usize,
    pub bytes: usize,
    pub form: Form,
    pub apply: fn(&Rows<'_>, &Activations, &Output, &Session<'_>),
}

static ENTRIES: &[Entry] = &[
    make::<legacy::Q4_0>("q4_0"),
    make::<legacy::Q4_1>("q4_1"),
    make::<legacy::Q5_0>("q5_0"),
    make::<legacy::Q5_1>("q5_1"),
    make::<legacy::Q8_0>("q8_0"),
    make::<k::Q2K>("q2_k"),
    make::<k::Q3K>("q3_k"),
    make::<k::Q4K>("q4_k"),
    make::<k::Q5K>("q5_k"),
    make::<k::Q6K>("q6_k"),
    make::<table::Iq4Nl>("iq4_nl"),
    make::<table::Iq4Xs>("iq4_xs"),
    make::<table::Mxfp4>("mxfp4"),
];

/// The kernels of a scheme, if it has some of its own.
pub(super) fn entry(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|e| e.name == name)
}

const fn make<C: Codes>(name: &'static str) -> Entry {
    Entry { name, block: C::BLOCK, bytes: C::BYTES, form: C::FORM, apply: apply::<C> }
}

fn apply<C: Codes>(weights: &Rows<'_>, x: &Activations, y: &Output, session: &Session<'_>) {
    if x.height == 1 { vector::apply::<C>(weights, x, y, session) } else { matrix::apply::<C>(weights, x, y, session) }
}

/// The low and the high nibbles of bytes.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn nibbles<S: Simd>(x: [S::I; 4]) -> [[S::I; 4]; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let mask = S::splat8(15);
        let low = [S::and(x[0], mask), S::and(x[1], mask), S::and(x[2], mask), S::and(x[3], mask)];
        let high = |x| S::and(S::shr16(x, 4), mask);
        [low, [high(x[0]), high(x[1]), high(x[2]), high(x[3])]]
    }
}

//! Schemes whose codes are multiplied as integers: how their blocks give codes, scales and minima.
//!
//! A scheme is one implementation of [`Codes`] and a line in [`ENTRIES`]. Anything else is decoded to floats.

use windlass_runtime::scheduler::Session;

use super::activations::{Activations, Form};
use super::{Output, Rows, exact, matrix, vector};
use crate::gemm::{Right, Tiles};
use crate::simd::Simd;
use crate::span::Span;

mod bits;
mod k;
mod lattice;
mod legacy;
mod table;
mod ternary;

pub(super) use table::{NORMAL_UNIT, SMALL_UNIT};

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
    /// Whether scales and minima are in planes of their own: then those that are given to a sink count for nothing.
    const APART: bool = false;
    /// What codes number, where that is no whole number of scales.
    const VALUES: Option<fn() -> &'static [f32; 16]> = None;

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
    pub exact: Exact,
}

/// Products with activations that stay floats.
#[derive(Clone, Copy)]
pub(super) struct Exact {
    /// What scales that are apart are multiplied by, where it is not what [`Entry::apply`] wants.
    pub factor: Option<f32>,
    pub forward: fn(&Rows<'_>, Tiles, usize, &Span<f32>, &Session<'_>),
    /// The weights as they stand.
    pub standing: for<'a> fn(&'a Rows<'a>) -> Box<dyn Right + 'a>,
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
    unpacked::<table::Nvfp4>("nvfp4"),
    unpacked::<ternary::Tq1_0>("tq1_0"),
    unpacked::<ternary::Tq2_0>("tq2_0"),
    unpacked::<lattice::Iq1S>("iq1_s"),
    unpacked::<lattice::Iq1M>("iq1_m"),
    unpacked::<lattice::Iq2Xxs>("iq2_xxs"),
    unpacked::<lattice::Iq2Xs>("iq2_xs"),
    unpacked::<lattice::Iq2S>("iq2_s"),
    unpacked::<lattice::Iq3Xxs>("iq3_xxs"),
    unpacked::<lattice::Iq3S>("iq3_s"),
    listed::<table::Normal, table::Listed<true>>("nf4 codes"),
    listed::<table::Small, table::Listed<false>>("fp4 codes"),
    unpacked::<table::E2m1<32>>("e2m1 codes"),
    unpacked::<table::E2m1<16>>("e2m1 codes by 16"),
    unpacked::<bits::Bits<1, 32>>("1 bit"),
    unpacked::<bits::Bits<2, 32>>("2 bits"),
    unpacked::<bits::Bits<3, 32>>("3 bits"),
    unpacked::<bits::Bits<4, 32>>("4 bits"),
    unpacked::<bits::Bits<5, 32>>("5 bits"),
    unpacked::<bits::Bits<6, 32>>("6 bits"),
    unpacked::<bits::Bits<8, 32>>("8 bits"),
    unpacked::<bits::Bits<1, 16>>("1 bit by 16"),
    unpacked::<bits::Bits<2, 16>>("2 bits by 16"),
    unpacked::<bits::Bits<3, 16>>("3 bits by 16"),
    unpacked::<bits::Bits<4, 16>>("4 bits by 16"),
    unpacked::<bits::Bits<8, 16>>("8 bits by 16"),
    unpacked::<bits::Signed>("signed bytes"),
];

/// The kernels of a scheme, or of a kind of codes, if it has some of its own.
pub(super) fn entry(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|e| e.name == name)
}

const fn make<C: Codes>(name: &'static str) -> Entry {
    let exact = Exact { factor: None, forward: exact::forward::<C>, standing: exact::standing::<C> };
    Entry { name, block: C::BLOCK, bytes: C::BYTES, form: C::FORM, apply: apply::<C>, exact }
}

/// Codes of a list of values: `C` rounds these to whole numbers, `L` does not.
const fn listed<C: Codes, L: Codes>(name: &'static str) -> Entry {
    let exact = Exact { factor: Some(1.0), forward: exact::forward::<L>, standing: exact::standing::<L> };
    Entry { exact, ..unpacked::<C>(name) }
}

/// Codes that are worth unpacking for a single row of activations too: their unpacking is most of the work.
const fn unpacked<C: Codes>(name: &'static str) -> Entry {
    Entry { apply: matrix::apply::<C>, ..make::<C>(name) }
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
        let (mask, mut low, mut high) = (S::splat8(15), x, x);
        for (j, low) in low.iter_mut().enumerate() {
            *low = S::and(x[j], mask);
            high[j] = S::and(S::shr16(x[j], 4), mask);
        }
        [low, high]
    }
}

/// Byte `index` of each 32-bit element, without sign.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn byte_of<S: Simd>(x: S::I, index: u32) -> S::I {
    // SAFETY: the caller's promise.
    unsafe { S::and(S::shr32(x, 8 * index), S::splat32(255)) }
}

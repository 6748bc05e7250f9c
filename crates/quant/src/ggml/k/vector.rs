//! Sixteen numbers side by side, one of each super-block of a batch.
//!
//! Every operation is written out for each lane, without branches, and the compiler turns it into vectors of the instruction
//! set at hand; loops over lanes would take it far longer. Comparisons and selections behave like the `<`, `>` and `?:` of C,
//! also for values that are not numbers.

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use crate::float::{f16_to_f32, f32_to_f16_bits};

use super::search::nearest;

/// Super-blocks that are coded in lockstep.
pub(super) const LANES: usize = 16;

/// To be called in loops whose body works on whole lanes: keeps the compiler from making vectors across iterations instead,
/// which would cost gathers and scatters. It is no instruction itself.
#[inline(always)]
pub(super) fn lanes_only() {
    std::hint::black_box(());
}

/// Floats; aligned so that no vector load crosses a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub [f32; LANES]);

/// Integers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Ints(pub [i32; LANES]);

/// All bits set in the lanes where something is true, none elsewhere.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Mask([u32; LANES]);

/// An array with the expression for each lane.
macro_rules! each_lane {
    ($n:ident => $value:expr) => {
        each_lane!(@ $n, $value, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $n:ident, $value:expr, $($lane:literal)*) => {
        [$({ let $n: usize = $lane; $value }),*]
    };
}

impl Lanes {
    pub const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    pub fn all(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        Self(each_lane!(n => self.0[n].abs()))
    }

    #[inline(always)]
    pub fn sqrt(self) -> Self {
        Self(each_lane!(n => self.0[n].sqrt()))
    }

    #[inline(always)]
    pub fn neg(self) -> Self {
        Self(each_lane!(n => -self.0[n]))
    }

    /// `self < other ? self : other`.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self(each_lane!(n => if self.0[n] < other.0[n] { self.0[n] } else { other.0[n] }))
    }

    /// `self > other ? self : other`.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self(each_lane!(n => if self.0[n] > other.0[n] { self.0[n] } else { other.0[n] }))
    }

    #[inline(always)]
    pub fn lt(self, other: Self) -> Mask {
        Mask(each_lane!(n => u32::from(self.0[n] < other.0[n]).wrapping_neg()))
    }

    #[inline(always)]
    pub fn gt(self, other: Self) -> Mask {
        other.lt(self)
    }

    #[inline(always)]
    pub fn eq(self, other: Self) -> Mask {
        Mask(each_lane!(n => u32::from(self.0[n] == other.0[n]).wrapping_neg()))
    }

    /// The nearest whole number, ties to even; only for magnitudes below 2^22.
    #[inline(always)]
    pub fn round(self) -> Self {
        let integers = Self::all(12_582_912.0);
        (self + integers) - integers
    }

    /// [`nearest`] in each lane, for any value.
    #[inline(always)]
    pub fn nearest(self) -> Ints {
        Ints(each_lane!(n => nearest(self.0[n])))
    }

    /// Bits of the half-precision floats nearest to the lanes.
    #[inline(always)]
    pub fn to_f16(self) -> [u16; LANES] {
        self.0.map(f32_to_f16_bits)
    }

    #[inline(always)]
    pub fn from_f16(bits: [u16; LANES]) -> Self {
        Self(bits.map(f16_to_f32))
    }
}

macro_rules! lanewise {
    ($type:ident, $($trait:ident $method:ident $op:tt),*) => {$(
        impl $trait for $type {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(each_lane!(n => self.0[n] $op other.0[n]))
            }
        }
    )*};
}

lanewise!(Lanes, Add add +, Sub sub -, Mul mul *, Div div /);
lanewise!(Mask, BitAnd bitand &, BitOr bitor |);

impl Ints {
    #[inline(always)]
    pub fn all(value: i32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    pub fn clamp(self, low: i32, high: i32) -> Self {
        Self(each_lane!(n => self.0[n].min(high).max(low)))
    }

    #[inline(always)]
    pub fn min(self, high: i32) -> Self {
        Self(each_lane!(n => self.0[n].min(high)))
    }

    #[inline(always)]
    pub fn plus(self, offset: i32) -> Self {
        Self(each_lane!(n => self.0[n].wrapping_add(offset)))
    }

    #[inline(always)]
    pub fn low_bits(self, bits: i32) -> Self {
        Self(each_lane!(n => self.0[n] & bits))
    }

    /// The signed number in the lowest byte.
    #[inline(always)]
    pub fn sign_extend_byte(self) -> Self {
        Self(each_lane!(n => self.0[n] << 24 >> 24))
    }

    #[inline(always)]
    pub fn ne(self, other: Self) -> Mask {
        Mask(each_lane!(n => u32::from(self.0[n] != other.0[n]).wrapping_neg()))
    }

    #[inline(always)]
    pub fn to_f32(self) -> Lanes {
        Lanes(each_lane!(n => self.0[n] as f32))
    }

    /// The lanes with their lowest byte as byte `k` of `words`, which has zeros there.
    #[inline(always)]
    pub fn into_byte(self, k: usize, words: [u32; LANES]) -> [u32; LANES] {
        each_lane!(n => words[n] | (self.0[n] as u32) << (8 * k as u32))
    }

    /// Byte `k` of each word.
    #[inline(always)]
    pub fn from_byte(k: usize, words: [u32; LANES]) -> Self {
        Self(each_lane!(n => (words[n] >> (8 * k as u32) & 255) as i32))
    }
}

impl Mask {
    pub const NONE: Self = Self([0; LANES]);

    /// `a` where true, `b` elsewhere.
    #[inline(always)]
    pub fn pick(self, a: Lanes, b: Lanes) -> Lanes {
        Lanes(each_lane!(n => f32::from_bits(a.0[n].to_bits() & self.0[n] | b.0[n].to_bits() & !self.0[n])))
    }

    /// `a` where true, `b` elsewhere.
    #[inline(always)]
    pub fn pick_ints(self, a: Ints, b: Ints) -> Ints {
        Ints(each_lane!(n => a.0[n] & self.0[n] as i32 | b.0[n] & !self.0[n] as i32))
    }

    #[inline(always)]
    pub fn any(self) -> bool {
        self.0.iter().fold(0, |all, lane| all | lane) != 0
    }

    #[inline(always)]
    pub fn lane(&self, n: usize) -> bool {
        self.0[n] != 0
    }
}

impl Not for Mask {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        Self(each_lane!(n => !self.0[n]))
    }
}

//! Sixteen numbers side by side, one of each super-block of a batch.
//!
//! Every operation is a loop over the lanes that the compiler turns into vectors of the instruction set at hand. Comparisons
//! and selections behave like the `<`, `>` and `?:` of C, also for values that are not numbers.

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

impl Lanes {
    pub const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    pub fn all(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn map(mut self, f: impl Fn(f32) -> f32) -> Self {
        for lane in &mut self.0 {
            *lane = f(*lane);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        self
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    pub fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    pub fn neg(self) -> Self {
        self.map(|a| -a)
    }

    /// `self < other ? self : other`.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    /// `self > other ? self : other`.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    pub fn lt(self, other: Self) -> Mask {
        Mask::of(|n| self.0[n] < other.0[n])
    }

    #[inline(always)]
    pub fn gt(self, other: Self) -> Mask {
        other.lt(self)
    }

    #[inline(always)]
    pub fn eq(self, other: Self) -> Mask {
        Mask::of(|n| self.0[n] == other.0[n])
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
        let mut ints = Ints([0; LANES]);
        for (int, value) in ints.0.iter_mut().zip(self.0) {
            *int = nearest(value);
        }
        ints
    }

    /// Bits of the half-precision floats nearest to the lanes.
    #[inline(always)]
    pub fn to_f16(self) -> [u16; LANES] {
        let mut bits = [0; LANES];
        for (bits, value) in bits.iter_mut().zip(self.0) {
            *bits = f32_to_f16_bits(value);
        }
        bits
    }

    #[inline(always)]
    pub fn from_f16(bits: [u16; LANES]) -> Self {
        let mut lanes = Self::ZERO;
        for (lane, bits) in lanes.0.iter_mut().zip(bits) {
            *lane = f16_to_f32(bits);
        }
        lanes
    }
}

macro_rules! lanewise {
    ($type:ident, $($trait:ident $method:ident $op:tt),*) => {$(
        impl $trait for $type {
            type Output = Self;

            #[inline(always)]
            fn $method(mut self, other: Self) -> Self {
                for (a, b) in self.0.iter_mut().zip(other.0) {
                    *a = *a $op b;
                }
                self
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
    fn map(mut self, f: impl Fn(i32) -> i32) -> Self {
        for lane in &mut self.0 {
            *lane = f(*lane);
        }
        self
    }

    #[inline(always)]
    pub fn clamp(self, low: i32, high: i32) -> Self {
        self.map(|a| if a > high { high } else { a }).map(|a| if a < low { low } else { a })
    }

    #[inline(always)]
    pub fn min(self, high: i32) -> Self {
        self.map(|a| if a > high { high } else { a })
    }

    #[inline(always)]
    pub fn plus(self, offset: i32) -> Self {
        self.map(|a| a.wrapping_add(offset))
    }

    #[inline(always)]
    pub fn low_bits(self, bits: i32) -> Self {
        self.map(|a| a & bits)
    }

    /// The signed number in the lowest byte.
    #[inline(always)]
    pub fn sign_extend_byte(self) -> Self {
        self.map(|a| a << 24 >> 24)
    }

    #[inline(always)]
    pub fn from_bytes(bytes: [u8; LANES]) -> Self {
        let mut ints = Self::all(0);
        for (int, byte) in ints.0.iter_mut().zip(bytes) {
            *int = i32::from(byte);
        }
        ints
    }

    #[inline(always)]
    pub fn ne(self, other: Self) -> Mask {
        Mask::of(|n| self.0[n] != other.0[n])
    }

    #[inline(always)]
    pub fn to_f32(self) -> Lanes {
        let mut lanes = Lanes::ZERO;
        for (lane, int) in lanes.0.iter_mut().zip(self.0) {
            *lane = int as f32;
        }
        lanes
    }

    /// The lowest byte of each lane.
    #[inline(always)]
    pub fn to_bytes(self) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        for (byte, int) in bytes.iter_mut().zip(self.0) {
            *byte = int as u8;
        }
        bytes
    }
}

impl Mask {
    pub const NONE: Self = Self([0; LANES]);

    #[inline(always)]
    fn of(f: impl Fn(usize) -> bool) -> Self {
        let mut mask = Self::NONE;
        for (n, lane) in mask.0.iter_mut().enumerate() {
            *lane = u32::from(f(n)).wrapping_neg();
        }
        mask
    }

    /// `a` where true, `b` elsewhere.
    #[inline(always)]
    pub fn pick(self, a: Lanes, mut b: Lanes) -> Lanes {
        for (n, lane) in b.0.iter_mut().enumerate() {
            *lane = f32::from_bits(a.0[n].to_bits() & self.0[n] | lane.to_bits() & !self.0[n]);
        }
        b
    }

    /// `a` where true, `b` elsewhere.
    #[inline(always)]
    pub fn pick_ints(self, a: Ints, mut b: Ints) -> Ints {
        for (n, lane) in b.0.iter_mut().enumerate() {
            let mask = self.0[n] as i32;
            *lane = a.0[n] & mask | *lane & !mask;
        }
        b
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
    fn not(mut self) -> Self {
        for lane in &mut self.0 {
            *lane = !*lane;
        }
        self
    }
}

//! Codes of three values: TQ1_0, five to a byte, and TQ2_0, four.

use super::{Codes, Form, Sink};
use crate::simd::{Simd, tile_pieces, transpose};

pub(super) struct Tq1_0;
pub(super) struct Tq2_0;

/// Bytes whose digits to base three come out one by one: even and odd bytes, as fractions in the low halves of 16 bits.
struct Fractions<S: Simd>([[S::I; 4]; 2]);

impl<S: Simd> Fractions<S> {
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn new(x: [S::I; 4]) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let low = S::splat32(0x00ff_00ff);
            let even = [S::and(x[0], low), S::and(x[1], low), S::and(x[2], low), S::and(x[3], low)];
            Fractions([even, [S::shr16(x[0], 8), S::shr16(x[1], 8), S::shr16(x[2], 8), S::shr16(x[3], 8)]])
        }
    }

    /// The next digit of each byte.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn next(&mut self) -> [S::I; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (three, low) = (S::splat32(0x0003_0003), S::splat32(0x00ff_00ff));
            let mut digits = [S::splat32(0); 4];
            let Fractions([even, odd]) = self;
            for (j, digits) in digits.iter_mut().enumerate() {
                let (e, o) = (S::mul16(even[j], three), S::mul16(odd[j], three));
                *digits = S::or(S::shr16(e, 8), S::and(o, S::splat32(0xff00_ff00_u32 as i32)));
                (even[j], odd[j]) = (S::and(e, low), S::and(o, low));
            }
            digits
        }
    }
}

impl Codes for Tq1_0 {
    const BLOCK: usize = 256;
    const BYTES: usize = 54;
    const GROUP: usize = 32;
    const OFFSET: i32 = 1;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: 32 bytes of five digits each, 16 bytes of five, 4 bytes of four, the scale. Digit `n` of the bytes of a run
    /// is the `n`-th part of its values.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block, the last ones end with it.
        unsafe {
            let scale = S::half(S::shr32(S::dwords(at.add(50), stride), 16));
            let mut first = Fractions::<S>::new(tile_pieces::<S>(at, stride));
            let mut second = Fractions::<S>::new(tile_pieces::<S>(at.add(16), stride));
            for group in 0..5 {
                let codes = [first.next(), second.next()];
                sink.take(group, codes, scale, S::zero());
            }
            let mut third = Fractions::<S>::new(tile_pieces::<S>(at.add(32), stride));
            for group in 5..7 {
                let codes = [third.next(), third.next()];
                sink.take(group, codes, scale, S::zero());
            }
            // Four bytes of each row, a row per element: the same word for all four digits.
            let mut last = Fractions::<S>::new([S::dwords(at.add(48), stride); 4]);
            let digits = [last.next(), last.next(), last.next(), last.next()];
            let pieces = transpose::<S>([digits[0][0], digits[1][0], digits[2][0], digits[3][0]]);
            sink.take(7, [third.next(), pieces], scale, S::zero());
        }
    }
}

impl Codes for Tq2_0 {
    const BLOCK: usize = 256;
    const BYTES: usize = 66;
    const GROUP: usize = 32;
    const OFFSET: i32 = 1;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: two times 32 bytes, byte `i` of which holds codes `i`, `i + 32`, `i + 64` and `i + 96`; the scale.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block, the last ones end with it.
        unsafe {
            let scale = S::half(S::shr32(S::dwords(at.add(62), stride), 16));
            for half in 0..2 {
                let at = at.add(32 * half);
                let x = [tile_pieces::<S>(at, stride), tile_pieces::<S>(at.add(16), stride)];
                for quarter in 0..4 {
                    let mut codes = x;
                    for code in codes.as_flattened_mut() {
                        *code = S::and(S::shr16(*code, 2 * quarter as u32), S::splat8(3));
                    }
                    sink.take(4 * half + quarter, codes, scale, S::zero());
                }
            }
        }
    }
}
